"""What is whoever starts the gateway told once it is ready?"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shlex
from dataclasses import replace

import pytest

from fleet.types import Adapter, BaseModel, Fleet, Tenant
from routing.http import announcement
from routing.http.announcement import Announcement, address_of, announce

ADDRESS = "http://127.0.0.1:3000"


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def fleet(*tenants: Tenant, **models: BaseModel) -> Fleet:
    base_models = models or {"llama": BaseModel("llama", "/models/llama")}
    adapters = {"tone": Adapter("tone", "/adapters/tone", "llama")}
    return Fleet(base_models, adapters, {tenant.name: tenant for tenant in tenants}, {})


SHOP = Tenant("shop", frozenset({hash_of("secret")}), {"support": "tone", "base": "llama"})
DEMO = Tenant("acme", frozenset({hash_of("acme-demo-key")}), {"sales": "tone"})


def command(fleet: Fleet) -> list[str]:
    """What a shell makes of the command."""
    told = Announcement.of(fleet, ADDRESS)
    assert told.command is not None
    return shlex.split(told.command)


def test_it_says_where_it_serves_and_the_command_stands_on_a_line_of_its_own() -> None:
    first, second = Announcement.of(fleet(SHOP), ADDRESS).for_people("12:00:00 ").split("\n")
    assert first == f"12:00:00 gateway: serving at {ADDRESS}/v1, console at {ADDRESS}/console; try:"
    assert second.startswith(f"curl {ADDRESS}/v1/chat/completions ")
    assert "\n" not in str(Announcement.of(fleet(SHOP), ADDRESS))


@pytest.mark.parametrize(
    ("tenants", "key", "model"),
    [
        ((SHOP,), "$API_KEY", "support"),
        ((SHOP, DEMO), "acme-demo-key", "sales"),
        ((replace(DEMO, name="other"),), "$API_KEY", "sales"),
        ((replace(SHOP, default_model="base"),), "$API_KEY", "base"),
        ((replace(SHOP, models={}), DEMO), "acme-demo-key", "sales"),
    ],
    ids=["one's own", "the demo's", "another's name", "default model", "no models"],
)
def test_the_command_asks_a_tenants_model_with_a_key_only_if_everybody_knows_it(
    tenants: tuple[Tenant, ...], key: str, model: str
) -> None:
    words = command(fleet(*tenants))
    assert f"Authorization: Bearer {key}" in words
    assert json.loads(words[-1])["model"] == model


def test_a_model_that_only_embeds_is_asked_nothing() -> None:
    embedder = BaseModel("e5", "/models/e5", vllm_args=("--runner", "pooling"))
    tenant = replace(SHOP, models={"search": "e5"})
    told = Announcement.of(fleet(tenant, e5=embedder), ADDRESS)
    assert told.command is None
    assert str(told) == f"serving at {ADDRESS}/v1; console at {ADDRESS}/console"


@pytest.mark.parametrize(
    ("known", "address"),
    [
        ('{"gateway": "http://localhost:3000", "chat-0": "file:///x"}', "http://127.0.0.1:3000"),
        ('{"gateway": "http://10.0.0.7:80"}', "http://10.0.0.7:80"),
        ('{"chat-0": "http://localhost:3000"}', None),
        ("nonsense", None),
        ("[]", None),
    ],
)
def test_bentoml_says_where_the_gateway_listens(known: str, address: str | None) -> None:
    assert address_of({"BENTOML_RUNNER_MAP": known}, "gateway") == address
    assert address_of({}, "gateway") is None


async def test_it_is_said_once_and_not_before_the_gateway_is_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantry.gateway")
    monkeypatch.setattr(announcement, "LOOK_INTERVAL_S", 0)
    answers = iter([False, False, True])
    waiting = asyncio.create_task(announce(fleet(SHOP), ADDRESS, lambda: next(answers)))
    await asyncio.sleep(0)
    assert caplog.messages == []
    await waiting
    assert [message.partition(";")[0] for message in caplog.messages] == [f"serving at {ADDRESS}/v1"]
