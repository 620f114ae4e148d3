"""The faults of an adapter. Every message names the adapter and the remedy.

AdapterError
|-- SourceUnavailable  its source does not answer now; the same call may succeed later
|-- ChecksumMismatch   the content does not match the promised checksum
|-- StoreFull          no room for it on disk, or in the store's budget
`-- IllegalTransition  a version cannot go from the state it is in to the one asked for
"""

from __future__ import annotations


class AdapterError(Exception):
    """An adapter cannot be served as it is."""


class SourceUnavailable(AdapterError):
    """The source does not answer now; later it may."""


class ChecksumMismatch(AdapterError):
    """The content does not match the promised checksum."""


class StoreFull(AdapterError):
    """There is no room for the adapter."""


class IllegalTransition(AdapterError):
    """A version cannot go from the state it is in to the one asked for; nothing was changed."""
