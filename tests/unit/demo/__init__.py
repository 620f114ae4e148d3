"""Tests of the demo models."""
