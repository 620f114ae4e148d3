"""What runs beside Tenantry, and how it is set up."""
