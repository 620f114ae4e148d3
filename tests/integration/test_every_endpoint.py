"""What holds for every endpoint of vLLM's alike, whatever its body looks like: keys, names, limits."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import protocol
from engines.protocol import FORMS, Kind
from fleet.money import Price, Prices
from fleet.types import Budget, Caps, Fleet
from routing.catalog.entries import ApiKey, KeyRole
from routing.http.cors import EXPOSED
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import ENDPOINTS
from tests.fakes import Client, Send, adapter_id, key_of, respond, small_fleet
from tests.forms import TYPE, form
from tests.integration.conftest import Bench, bench_of

KINDS = list(Kind)
# Beside the keys of the small fleet.
MADE: dict[str, dict[str, Any]] = {
    "of a suspended tenant": {"tenant": "b"},
    "for adapters": {"tenant": "a", "role": KeyRole.ADAPTERS},
    "of an operator": {"tenant": None, "role": KeyRole.OPERATOR},
    "expired": {"tenant": "a", "expires_s": 1.0},
    "revoked": {"tenant": "a", "revoked_s": 1.0},
}


def send(bench: Bench, kind: Kind, key: str | None, fields: dict[str, Any] | None) -> Client:
    """A request with these fields beside its content; None: without anything."""
    if kind in FORMS:
        body, told = form({}, None) if fields is None else form(fields), TYPE
    else:
        body, told = json.dumps({} if fields is None else CONTROL[kind] | fields).encode(), "application/json"
    keys = [] if key is None else [("authorization", f"Bearer {key}")]
    return Client(bench.gateway.app, kind.value, body=body, headers=[*keys, ("content-type", told)])


def ask(bench: Bench, kind: Kind, tenant: str = "a", **fields: str) -> Client:
    return send(bench, kind, key_of(tenant), {"model": "support", **fields})


def code(client: Client) -> str | None:
    """The error's code; Anthropic's form has none."""
    told: str | None = client.error.get("code")
    return told


def limited(caps: Caps, **changes: Any) -> Fleet:
    fleet = small_fleet(caps=caps)
    return replace(fleet, tenants=fleet.tenants | {"a": replace(fleet.tenants["a"], **changes)})


@pytest.mark.parametrize("kind", KINDS)
async def test_each_key_gets_what_it_gets_for_a_chat(bench: Bench, kind: Kind) -> None:
    now = bench.gateway.fleet.now
    suspended = {"b": replace(now.tenants["b"], suspended=True)}
    bench.gateway.fleet.replace(replace(now, tenants=now.tenants | suspended))
    for name, told in MADE.items():
        made = {"role": KeyRole.INFERENCE, "created_s": time.time(), **told}
        bench.gateway.directory.put_key(ApiKey(name, name, hashlib.sha256(name.encode()).hexdigest(), **made))
    statuses = set()
    for key in (None, "made-up", key_of("operator"), key_of("a"), key_of("b"), *MADE):
        chat, other = [await send(bench, each, key, None)() for each in (Kind.CHAT, kind)]
        assert other.status == chat.status and code(other) in (code(chat), None), key
        statuses.add(other.status)
    assert statuses == {400, 401, 403} and bench.engines["shared-0"].seen == []


@pytest.mark.parametrize("kind", KINDS)
async def test_another_tenants_model_and_an_unknown_one_are_the_same_404(bench: Bench, kind: Kind) -> None:
    bodies = []
    for model in ("b-support", "nothing", "b-support@1", "b/support", "\u202e", "x" * 5000):
        client = await ask(bench, kind, model=model)()
        assert client.status == 404
        told = client.body.decode().replace(client.headers["x-request-id"], "")
        bodies.append(told.replace(json.dumps(model[:100], ensure_ascii=False)[1:-1], ""))
    assert len(set(bodies)) == 1 and bench.at_rest


@pytest.mark.parametrize("kind", KINDS)
async def test_the_engine_gets_the_tenants_salt_and_band_and_its_name_of_the_model(
    bench: Bench, kind: Kind
) -> None:
    engine, salts = bench.engines["shared-0"], {"mine"}
    for tenant, rank in (("a", "1"), ("b", "2")):
        sent: dict[str, Any] = {"cache_salt": "mine", "priority": "-9", "request_id": "x"}
        client = await ask(bench, kind, tenant, **sent)()
        assert client.status == 200 and client.headers["x-tenantry-model"] == "support"
        (seen,), (headers,) = engine.seen, engine.headers
        engine.seen.clear()
        engine.headers.clear()
        assert "request_id" not in seen and "x" != headers["x-request-id"] != client.headers["x-request-id"]
        if not ENDPOINTS[kind].runs:
            assert seen["model"] == "base", "a tokenizer needs no slot"
            assert protocol.ADAPTER_HEADER not in headers
            continue
        assert seen["model"] == headers[protocol.ADAPTER_HEADER] == adapter_id(f"{tenant}-support")
        salts.add(headers[protocol.SALT_HEADER] if kind in FORMS else seen["cache_salt"])
        assert kind not in FORMS or seen.keys() == {"model", "file"}
        in_header = kind in FORMS or kind is Kind.MESSAGES
        assert str(headers[protocol.PRIORITY_HEADER] if in_header else seen["priority"]) == rank
    assert len(salts) == (3 if ENDPOINTS[kind].runs else 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_rates_hold_and_are_told(tmp_path: Path, kind: Kind) -> None:
    async with bench_of(limited(Caps(requests_per_minute=2)), tmp_path) as bench:
        answers = [await ask(bench, kind)() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert code(answers[2]) in ("requests_per_minute", None) and "retry-after" in answers[2].headers
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_budget_that_is_used_up_ends_what_costs_something(tmp_path: Path, kind: Kind) -> None:
    async with bench_of(limited(Caps(), budget=Budget(monthly_tokens=1)), tmp_path) as bench:
        answer = await ask(bench, kind)()
        if ENDPOINTS[kind].runs:
            assert answer.status == 429 and code(answer) in ("insufficient_quota", None)
            assert bench.engines["shared-0"].seen == []
        else:
            assert answer.status == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [404, 501])
async def test_a_model_that_does_not_do_it_says_so(bench: Bench, kind: Kind, status: int) -> None:
    async def refuse(body: dict[str, Any], send: Send) -> None:
        await respond(send, status, {"error": {"message": "/secret/path", "code": status}})

    bench.engines["shared-0"].behave = refuse
    refused = await ask(bench, kind)()
    assert refused.status == 400 and code(refused) in ("unsupported_endpoint", None)
    assert "`support` does not" in refused.error["message"] and "secret" not in refused.body.decode()
    assert bench.at_rest


# What a page may always read (Fetch, "CORS-safelisted response-header name"), and what is the connection's.
PLAIN = {"content-type", "content-length", "cache-control", "x-accel-buffering", "www-authenticate"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_may_read_every_header_of_an_answer(tmp_path: Path, kind: Kind) -> None:
    fleet = limited(Caps(requests_per_minute=2, tokens_per_minute=10_000), budget=Budget(9999, 0.0))
    fleet = replace(fleet, prices=Prices("EUR", {"base": Price(1, 1, 1)}))
    async with bench_of(fleet, tmp_path) as bench:

        async def tell_more(body: dict[str, Any], send: Send) -> None:
            await respond(send, 200, {}, {"metadata": "{}", "content-type": "application/octet-stream"})

        found: set[str] = set()
        for behave in (bench.engines["shared-0"].answer, tell_more, tell_more):
            bench.engines["shared-0"].behave = behave
            found |= (await ask(bench, kind)()).headers.keys()
        found |= (await send(bench, kind, "nobody's", {})()).headers.keys()
        assert found - PLAIN <= set(EXPOSED) and "x-ratelimit-reset-requests" in found
