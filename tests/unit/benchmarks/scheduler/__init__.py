"""Tests of the comparison of schedulers, without an engine."""
