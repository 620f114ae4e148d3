"""Ledgers on SQLite, and on a real PostgreSQL where its programs are installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routing.usage import UsageStore
from tests.unit.routing.state.conftest import server, sqlite_url, url

__all__ = ["server", "sqlite_url", "url"]


@pytest.fixture
def store(url: str) -> Iterator[UsageStore]:
    store = UsageStore(url)
    store.open()
    yield store
    store.close()
