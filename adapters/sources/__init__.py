"""Sources of adapters, and the safe way of their files to this machine.

A source is an absolute folder, `hf://org/repo[@revision]`, `s3://bucket/prefix`, `gs://bucket/prefix`, an
archive at `https://`, or `bento://name:version` in the BentoML model store. From every source only the two
files that engines read are taken, bounded in size and compared with the checksum if there is one.
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
