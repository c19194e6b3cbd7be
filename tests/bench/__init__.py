"""Measurements beside the tools people use now; `python -m tests.bench`, or `make bench`."""
