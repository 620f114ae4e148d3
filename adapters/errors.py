"""What can be wrong with an adapter. Every message names the adapter and says what to do.

AdapterError
|-- SourceUnavailable  its source does not answer now; the same call may succeed later
|-- ChecksumMismatch   what came is not what was promised
|-- StoreFull          no room for it on disk, or in the store's budget
`-- IllegalTransition  a version cannot go from the state it is in to the one asked for
"""

from __future__ import annotations


class AdapterError(Exception):
    """An adapter cannot be served as it is."""


class SourceUnavailable(AdapterError):
    """The source does not answer now; later it may."""


class ChecksumMismatch(AdapterError):
    """What came is not what was promised."""


class StoreFull(AdapterError):
    """There is no room for the adapter."""


class IllegalTransition(AdapterError):
    """A version cannot go from the state it is in to the one asked for; nothing was changed."""
