"""The command `tenantry`: checks, builds and serves fleets, and manages a running gateway."""

from fleet.release import VERSION as __version__

__all__ = ["__version__"]
