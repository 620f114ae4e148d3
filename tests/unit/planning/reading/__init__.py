"""Tests of what planning reads."""
