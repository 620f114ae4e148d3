"""Tests of fleet: what a fleet file may say, and what is said about one that is wrong."""
