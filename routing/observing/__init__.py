"""Observations of requests from outside: metrics, live figures, traces, log lines."""
