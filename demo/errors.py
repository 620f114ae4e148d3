"""What can go wrong while the demo models are made. Every message says what to do."""

from __future__ import annotations

from adapters.errors import AdapterError


class DemoError(AdapterError):
    """The demo models cannot be made as asked."""
