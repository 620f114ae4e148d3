"""From an authenticated request to one replica and back: tenants, caps, fairness, slots, the data plane."""
