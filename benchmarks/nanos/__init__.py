"""The questions that are asked on Nanos."""
