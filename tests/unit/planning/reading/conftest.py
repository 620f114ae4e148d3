"""Ledgers on SQLite, and on a real PostgreSQL where its programs are installed."""

from __future__ import annotations

from tests.unit.routing.usage.conftest import server, sqlite_url, store, url

__all__ = ["server", "sqlite_url", "store", "url"]
