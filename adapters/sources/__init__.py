"""Where do an adapter's files come from, and how do they get here safely?

A source is an absolute folder, `hf://org/repo[@revision]`, `s3://bucket/prefix`, `gs://bucket/prefix`, an
archive at `https://`, or `bento://name:version` in the BentoML model store. Whatever the source, what arrives
are the two files that engines read, never more, bounded in size and checked where a checksum was promised.
"""

from __future__ import annotations

from adapters.sources.address import (
    check_prefix,
    check_source,
    forbidden_host,
    is_allowed,
    names_host,
)
from adapters.sources.archive import unpack
from adapters.sources.download import FetchStopped
from adapters.sources.fetching import FetchSettings, fetch

__all__ = [
    "FetchSettings",
    "FetchStopped",
    "check_prefix",
    "check_source",
    "fetch",
    "forbidden_host",
    "is_allowed",
    "names_host",
    "unpack",
]
