"""Tests of benchmarks/: the pure parts, and the C tools against each other."""
