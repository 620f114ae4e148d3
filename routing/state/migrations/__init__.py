"""The migrations of the state database, one module in `versions` for each change."""
