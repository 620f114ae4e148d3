"""Bounds of files and batches, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Bounds of tenants' files and batches, and where files are."""

    max_file_bytes: int = 200 * 2**20
    max_files: int = 1000  # of one tenant
    max_tenant_bytes: int = 10 * 2**30  # of all its files
    max_unfinished: int = 20  # batches of one tenant
    keep_days: int = 30  # files and ended batches
    folder: str | None = None  # s3://bucket/prefix; None: in the state folder
    key_variable: str | None = None  # environment variable of the key that files are sealed with; None: plain

    @property
    def keep_s(self) -> float:
        """How long files are kept."""
        return self.keep_days * 86_400.0
