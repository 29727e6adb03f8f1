"""Values, protocols and errors: the vocabulary every backend shares. No I/O happens in this package."""
