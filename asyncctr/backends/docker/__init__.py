"""Docker, and what speaks its API: the engine's own HTTP interface over unix, TCP, TLS and ssh.

Nothing is imported here: where an engine is, is found without the packages that talking to it takes.
"""
