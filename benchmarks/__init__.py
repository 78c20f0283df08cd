"""Benchmarks, the source of the figures in the README. `make bench`, or `python -m benchmarks --help`."""
