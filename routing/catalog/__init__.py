"""Who calls, and what does a model's name mean? Tenants, adapters and their versions, in memory."""
