"""Side by side with the peers, on one private daemon: ``python -P benchmarks/run.py``."""
