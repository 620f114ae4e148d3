"""Reads YAML that somebody wrote, as fleet files are read: plain values, each with its line."""

from __future__ import annotations

from pathlib import Path

from fleet.document import MAX_FILE_BYTES, Document, read_document
from fleet.problems import Findings
from planning.requests import DemandError


def read_yaml(path: Path) -> Document:
    """Return the values of a file. Raises `DemandError` that names the line, and `OSError`."""
    raw = path.read_bytes()
    if len(raw) > MAX_FILE_BYTES:
        raise DemandError(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB, which no table by hand is")
    if not raw.strip():
        raise DemandError("it is empty")
    findings = Findings(path.name)
    document = read_document(path, findings, raw)
    if document is None or findings.errors:
        first = findings.errors[0]
        line = "" if first.line is None else f"line {first.line}: "
        key = f"`{first.path}`: " if first.path else ""
        raise DemandError(f"{line}{key}{first.message}{first.remedy and '; '}{first.remedy}")
    return document
