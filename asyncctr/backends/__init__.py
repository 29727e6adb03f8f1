"""One package per runtime; none imports another."""
