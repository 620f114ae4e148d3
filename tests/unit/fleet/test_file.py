"""The fleet file that a service was started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import FleetError
from fleet.file import FleetFile
from tests.unit.fleet.files import adapter_folder, changed, write


def test_who_looks_at_no_key_need_not_be_given_any(tmp_path: Path) -> None:
    data = changed("gateway/operator_keys", [{"env": "OPERATOR_KEY"}])
    for name in "abc":
        adapter_folder(tmp_path / name)
    data["state"] = {"database": {"env": "DATABASE_URL"}}
    file = FleetFile(write(tmp_path, data), "alone")
    with pytest.raises(FleetError, match="OPERATOR_KEY"):
        file.load()
    fleet, loaded = file.load(keys_needed=False)
    assert list(fleet.pools) == ["alone"]
    assert loaded.secret_variables == {"OPERATOR_KEY", "DATABASE_URL"}
