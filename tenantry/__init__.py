"""The command `tenantry`: checks, builds and serves fleets, and manages a running gateway."""

__version__ = "0.1.0"
