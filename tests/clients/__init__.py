"""Clients that tenants have already, beside plain vLLM and through the gateway: `make clients`."""
