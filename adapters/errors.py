"""What can be wrong with an adapter. Every message names the adapter and says what to do."""

from __future__ import annotations


class AdapterError(Exception):
    """An adapter cannot be served as it is."""
