"""The command line of adapters: what it asks of a gateway, and what it can do without one."""

from adapters.cli.app import app

__all__ = ["app"]
