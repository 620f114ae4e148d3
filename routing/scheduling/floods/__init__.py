"""Who floods, and what may such a tenant take? From what each has sent lately."""
