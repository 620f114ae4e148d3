"""Callers by key and targets by model name: tenants, adapters and their versions, in memory."""
