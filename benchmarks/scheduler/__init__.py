"""Which scheduler serves tenants best on real engines? One run, the same arrivals for each of them."""
