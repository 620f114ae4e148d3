"""The command `tenantry`: checks, builds and serves fleets, and asks a running gateway."""
