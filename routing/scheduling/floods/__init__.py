"""Which tenants flood, and how much may they take? From what each has sent lately."""
