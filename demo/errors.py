"""Errors of making the demo models. Every message names the remedy."""

from __future__ import annotations

from adapters.errors import AdapterError


class DemoError(AdapterError):
    """The demo models cannot be made as asked."""
