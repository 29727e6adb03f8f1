"""Sockets, processes and clean-up: the I/O that backends share."""
