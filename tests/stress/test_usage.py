"""The ledger after ten thousand mixed requests and a kill: only the documented last moment may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.conftest import two_slots
from tests.e2e.metering import run_with_a_kill
from tests.e2e.serving import serving

pytestmark = pytest.mark.engine

REQUESTS = int(os.environ.get("TENANTRY_USAGE_REQUESTS", "10000"))


def test_the_ledger_has_what_clients_used(tmp_path: Path) -> None:
    arguments = ("--arg", f"fleet={two_slots(tmp_path)}", "--arg", "pool=shared")
    with serving("service:Gateway", tmp_path, *arguments) as service:
        run_with_a_kill(service, tmp_path, REQUESTS)
