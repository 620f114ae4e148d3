"""Pictures in requests: what an engine gets of them, by what its base model allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.protocol import Kind
from fleet.content import Media
from routing.openai.bodies import CONTROL
from tests.fakes import Client, small_fleet
from tests.integration.conftest import Bench, bench_of

URL = "https://pictures.example/a.png"
DATA = "data:image/png;base64,AAAA"
KINDS = [Kind.CHAT, Kind.EMBEDDING, Kind.POOLING, Kind.TOKENIZE, Kind.MESSAGES, Kind.COUNT_TOKENS]


def ask(bench: Bench, kind: Kind, url: str, tenant: str = "a") -> Client:
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}, "uuid": "mine"}
    if kind in (Kind.MESSAGES, Kind.COUNT_TOKENS):
        part = {"type": "image", "source": {"type": "url", "url": url}}
    fields = {name: value for name, value in CONTROL[kind].items() if name == "max_tokens"}
    messages = [{"role": "user", "content": [part]}]
    return bench.post(kind.value, {**fields, "model": "support", "messages": messages}, tenant=tenant)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_gets_addresses_of_listed_hosts_alone(kind: Kind, tmp_path: Path) -> None:
    fleet = small_fleet()
    base = replace(fleet.base_models["base"], media=Media(hosts=("pictures.example",)))
    for hosts, status in ((fleet, 400), (replace(fleet, base_models={"base": base}), 200)):
        folder = tmp_path / str(status)
        folder.mkdir()
        async with bench_of(hosts, folder) as bench:
            client = await ask(bench, kind, URL)()
            assert client.status == status, client.body
            if status == 400 and kind not in (Kind.MESSAGES, Kind.COUNT_TOKENS):
                assert client.error["code"] == "media_not_allowed"
            assert (await ask(bench, kind, DATA)()).status == 200
            assert len(bench.engines["shared-0"].seen) == (1 if status == 400 else 2)


async def test_two_tenants_never_name_the_same_medium(bench: Bench) -> None:
    for tenant in ("a", "b", "a"):
        assert (await ask(bench, Kind.CHAT, DATA, tenant)()).status == 200
    seen = bench.engines["shared-0"].seen
    names = [body["messages"][0]["content"][0]["uuid"] for body in seen]
    assert names[0] == names[2] != names[1] and "mine" not in names
