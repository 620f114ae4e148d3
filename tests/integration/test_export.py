"""Does `export` give back the file with what was changed in it, and does applying that change nothing?"""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.writer import write_fleet
from tests.fakes import Client, key_of
from tests.integration.conftest import Bench
from tests.integration.test_consequences import ask
from tests.integration.test_fleets import Site, changed, site_in, without_b
from tests.integration.test_lifecycle import fleet_in


async def exported(bench: Bench, key: str = "operator") -> Client:
    return await bench.get("/admin/v1/export", key=key_of(key))()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A fleet file with comments."""
    file = tmp_path / "fleet.yaml"
    text = write_fleet(fleet_in(tmp_path), key_variables={})
    file.write_text("# our fleet\n" + text.replace("    weight: 1.0\n", "    weight: 1.0  # as sold\n"))
    return file


def document(file: Path) -> str:
    return file.read_text()


async def differing(site: Site, text: str) -> list[str]:
    """What applying a text would change, in words."""
    told = (await site.apply(text, "dry_run=true")).json()
    assert told["reasons"] == []
    return [f"{change['name']}: {change['text']}" for change in told["changes"]]


async def test_an_unchanged_fleet_is_its_file(file: Path) -> None:
    async with site_in(file.parent) as site:
        assert (await exported(site.bench)).body.decode() == document(file)
        other = changed(site, without_b)
        assert (await site.apply(other)).status == 200
        assert (await exported(site.bench)).body == other.encode(), "the document that counts, not the file"
        assert (await exported(site.bench, "a")).status == 403


async def test_what_was_changed_stands_in_it_and_applying_it_leaves_nothing_that_differs(file: Path) -> None:
    async with site_in(file.parent) as site:
        await ask(site, "PATCH", "/tenants/a", {"weight": 2, "caps": {"requests_per_minute": 60}})
        await ask(site, "POST", "/tenants", {"name": "d", "models": {"chat": "base"}})
        await ask(site, "DELETE", "/tenants/b", None)
        text = (await exported(site.bench)).body.decode()
        assert text.startswith("# our fleet\n") and text.count("# as sold") == 2
        assert "    weight: 2.0  # as sold" in text and "  b:" not in text
        assert await differing(site, text) == [
            "a: weight 1 -> 2",
            "a: requests_per_minute none -> 60",
            "b: removed",
            "d: added",
            "shared: tenant b leaves",
            "shared: tenant d joins",
        ]
        assert (await site.apply(text)).json()["applied"]
        assert await differing(site, text) == []
        assert (await exported(site.bench)).body.decode() == text
        assert (await site.bench.chat("a")()).status == 200


async def test_without_a_fleet_file_the_fleet_is_written_anew(bench: Bench) -> None:
    body = (await exported(bench)).body.decode()
    assert body == write_fleet(bench.gateway.fleet.now, key_variables={})
