"""What is served before the mock engine is a valid fleet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from benchmarks.fleet import MODELS, POOL, TENANT, api_key, mock_fleet, write
from fleet.schema import FleetFile


def test_one_tenant_has_three_adapters_and_the_base_model(tmp_path: Path) -> None:
    file = FleetFile.model_validate(json.loads(write(tmp_path, mock_fleet()).read_text()))
    assert list(file.tenants[TENANT].models) == list(MODELS)
    assert len(file.adapters) == 3 and file.pools[POOL].replicas == 1
    assert file.tenants[TENANT].api_keys[0].sha256 == hashlib.sha256(api_key(TENANT).encode()).hexdigest()
