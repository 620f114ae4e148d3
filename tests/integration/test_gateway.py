"""What a client sees: answers, errors, names. The engines are fake, everything before them is real."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from fleet.types import Caps, GatewaySettings, MetricsAccess, SchedulerSettings
from routing.http.inference import HELD_BYTES
from routing.openai.bodies import CONTROL
from routing.openai.endpoints import ENDPOINTS
from tests import messages
from tests.fakes import Client, adapter_id, begin_stream, eventually, key_of, small_fleet, sse
from tests.integration.conftest import Bench, bench_of
from tests.unit.routing.observing.metrics.scrapes import openmetrics_families

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "who?"}]


# -- answers -----------------------------------------------------------------------------------------------


async def test_an_answer_comes_from_the_tenants_own_adapter_under_the_tenants_own_name(bench: Bench) -> None:
    client = await bench.chat(model="support")()
    assert client.status == 200
    assert client.json()["choices"][0]["message"]["content"] == "I am a-support"
    assert client.json()["model"] == "support"
    assert bench.engines["shared-0"].seen[0]["model"] == adapter_id("a-support")


async def test_the_same_alias_means_another_adapter_for_another_tenant(bench: Bench) -> None:
    for tenant, adapter in (("a", "a-support"), ("b", "b-support"), ("c", "c-support")):
        client = await bench.chat(tenant, model="support")()
        assert client.json()["choices"][0]["message"]["content"] == f"I am {adapter}"
    assert [b["model"] for b in bench.engines["alone-0"].seen] == [adapter_id("c-support")]


async def test_a_stream_is_relayed_with_the_tenants_name_and_without_the_usage_nobody_asked_for(
    bench: Bench,
) -> None:
    client = await bench.chat(model="support", stream=True)()
    assert client.headers["content-type"].startswith("text/event-stream")
    assert b'"model":"support"' in client.body
    assert b"a-support" not in client.body.replace(b'"content":"a-support"', b"")
    assert b"usage" not in client.body
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert bench.engines["shared-0"].seen[0]["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


async def test_a_stream_carries_its_usage_where_the_client_asked_for_it(bench: Bench) -> None:
    client = await bench.chat(model="support", stream=True, stream_options={"include_usage": True})()
    assert client.body.count(b'"usage":{') == 1


@pytest.mark.parametrize("name", ["support", "a-support", None])
async def test_a_model_is_named_by_alias_by_adapter_or_not_at_all(bench: Bench, name: str | None) -> None:
    client = await (bench.chat(model=name) if name else bench.chat())()
    assert client.json()["choices"][0]["message"]["content"] == "I am a-support"


async def test_the_base_model_answers_where_the_tenant_may_use_it(bench: Bench) -> None:
    client = await bench.chat(model="plain")()
    assert client.json()["choices"][0]["message"]["content"] == "I am base"
    assert "x-tenantry-adapter" not in client.headers


async def test_adapter_id_says_more_than_the_placeholder_in_model(bench: Bench) -> None:
    client = await bench.chat(model="tgi", adapter_id="sales")()
    assert client.json()["choices"][0]["message"]["content"] == "I am a-sales"
    assert "adapter_id" not in bench.engines["shared-0"].seen[0]


async def test_answers_say_which_request_model_adapter_and_replica(bench: Bench) -> None:
    client = await bench.post(
        CHAT, {"model": "support", "messages": MESSAGES}, headers=[("x-request-id", "my-id.7")]
    )()
    assert client.headers["x-request-id"] == "my-id.7"
    assert client.headers["x-tenantry-model"] == "support"
    assert client.headers["x-tenantry-adapter"] == "a-support"
    assert client.headers["x-tenantry-replica"] == "shared-0"
    assert client.headers["x-tenantry-queue-ms"].isdigit()
    assert "server" not in client.headers


async def test_unknown_fields_reach_the_engine_as_they_came(bench: Bench) -> None:
    fields: dict[str, object] = {"temperature": 0.25, "n": 2, "logprobs": True, "x-new": {"deep": [1, None]}}
    await bench.chat(model="support", **fields)()
    assert bench.engines["shared-0"].seen[0].items() >= fields.items()


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/completions", {"prompt": "who?"}),
        ("/v1/embeddings", {"input": ["who?"]}),
        ("/v1/responses", {"input": "who?"}),
    ],
)
async def test_every_endpoint_is_relayed(bench: Bench, path: str, payload: dict[str, object]) -> None:
    client = await bench.post(path, payload)()
    assert client.status == 200
    assert bench.engines["shared-0"].seen[0]["model"] == adapter_id("a-support")


def responses_events(model: str) -> bytes:
    """A response's stream, of which three events carry the whole response, and one text looks like it."""
    whole: dict[str, Any] = {"id": "r", "model": model, "metadata": {"model": model}, "usage": None}
    used = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": whole}),
        ("response.in_progress", {"response": whole}),
        ("response.output_text.delta", {"delta": f'"model":"{model}"'}),
        ("response.completed", {"response": {**whole, "usage": used}}),
    ]
    return b"".join(b"event: %b\n" % kind.encode() + sse({"type": kind, **event}) for kind, event in told)


def models_in(body: bytes) -> set[str]:
    """Models that an answer names where the protocol has them, in whatever of its events."""
    texts = [
        line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith((b"data: {", b"{"))
    ]
    payloads = [orjson.loads(text) for text in texts]
    named = [payload.get("response", payload.get("message", payload)) for payload in payloads]
    return {each["model"] for each in named if "model" in each}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [kind.value for kind in CONTROL])
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"model": "support"}, "support"),
        ({"model": "a-support"}, "a-support"),
        ({"model": "support@1"}, "support@1"),
        ({"model": "a-support@1"}, "a-support@1"),
        ({"model": "tgi", "adapter_id": "a-sales"}, "a-sales"),
        ({"model": "lorax", "adapter_name": "sales@1"}, "sales@1"),
        ({"model": "base"}, "base"),
        ({}, "support"),
    ],
)
async def test_in_answers_the_model_is_what_was_asked_for(
    bench: Bench, path: str, stream: bool, asked: dict[str, object], named: str
) -> None:
    engine = bench.engines["shared-0"]

    async def respond_in_events(body: dict[str, Any], send: Any) -> None:
        await begin_stream(send)
        await send({"type": "http.response.body", "body": responses_events(body["model"])})

    kind = Kind(path)
    if path == "/v1/responses" and stream:
        engine.behave = respond_in_events
    elif kind is Kind.MESSAGES:
        engine.behave = messages.answer
    streamed: dict[str, object] = {"stream": True} if ENDPOINTS[kind].streams and stream else {}
    client = await bench.post(path, {**CONTROL[kind], **asked, **streamed})()
    assert client.status == 200
    assert models_in(client.body) == {named}


async def test_a_refusal_of_the_engine_names_the_model_as_it_was_asked_for(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.refuse_request
    client = await bench.chat(model="a-support@1")()
    assert client.error["message"] == "max_tokens is too large for a-support@1"


# -- bodies that are JSON all the same, and bodies that are not ---------------------------------------------

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("kind", list(CONTROL))
async def test_a_byte_order_mark_is_no_part_of_the_json(bench: Bench, kind: Kind) -> None:
    client = await bench.post(kind.value, BOM + orjson.dumps({"model": "support", **CONTROL[kind]}))()
    assert client.status == 200


async def test_a_byte_order_mark_before_an_operators_json_is_no_part_of_it(bench: Bench) -> None:
    client = await bench.post("/admin/v1/keys", BOM + b'{"role": 7}', tenant="operator")()
    assert client.error["code"] != "invalid_json"
    assert client.error["param"] == "role"


@pytest.mark.parametrize(
    ("path", "tenant"), [(CHAT, "a"), ("/v1/embeddings", "a"), ("/admin/v1/keys", "operator")]
)
@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "deflate, gzip", None])
async def test_a_packed_body_is_told_that_it_is_one(
    bench: Bench, path: str, tenant: str, coding: str | None
) -> None:
    body = gzip.compress(orjson.dumps({"model": "support", "messages": MESSAGES}))
    headers = [("content-encoding", coding)] if coding is not None else []
    client = await bench.post(path, body, tenant=tenant, headers=headers)()
    assert client.status == 415
    assert "compressed" in client.error["message"]


async def test_a_body_that_says_it_is_not_packed_is_read(bench: Bench) -> None:
    body = {"model": "support", "messages": MESSAGES}
    assert (await bench.post(CHAT, body, headers=[("content-encoding", "identity")])()).status == 200


# -- what a tenant may see ---------------------------------------------------------------------------------


async def test_models_lists_the_callers_own_and_no_path(bench: Bench) -> None:
    client = await bench.get("/v1/models", key=key_of("b"))()
    assert [card["id"] for card in client.json()["data"]] == ["support"]
    assert b"/" not in client.body
    assert b"a-" not in client.body


async def test_one_model_is_described_to_its_owner_only(bench: Bench) -> None:
    own = await bench.get("/v1/models/sales", key=key_of("a"))()
    assert own.json()["root"] == "a-sales"
    assert own.json()["id"] == "sales"
    foreign = await bench.get("/v1/models/sales", key=key_of("b"))()
    assert (foreign.status, foreign.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["support", "support@1", "a-support", "a-support@1", "base"])
async def test_what_may_be_asked_for_is_described_under_the_name_it_was_asked_by(
    bench: Bench, name: str
) -> None:
    answered = await bench.chat(model=name)()
    assert (answered.status, answered.json()["model"]) == (200, name)
    card = await bench.get(f"/v1/models/{name}", key=key_of("a"))()
    assert (card.status, card.json()["id"]) == (200, name)


@pytest.mark.parametrize("name", ["support@2", "sales@0", "nobody@1", "base@1"])
async def test_a_version_that_does_not_answer_is_not_described(bench: Bench, name: str) -> None:
    card = await bench.get(f"/v1/models/{name}", key=key_of("a"))()
    assert (card.status, card.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "name",
    [
        *("nobody-has-this", "a-support", "a-sales", "c-support", "base"),
        *("../a-support", "/adapters/a-support", "x" * 9999),
    ],
)
async def test_unknown_and_foreign_names_get_the_same_answer(bench: Bench, name: str) -> None:
    client = await bench.chat("b", model=name)()
    assert client.status == 404
    assert client.error == {
        "message": f"The model `{name[:100]}` does not exist.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert not bench.engines["shared-0"].seen


@pytest.mark.parametrize(
    "authorization",
    [
        *([], ["Bearer wrong"], ["Bearer "], ["Basic a2V5LW9mLWE="], [key_of("a")], ["Bearer \xe4\xf6"]),
        [f"Bearer {key_of('operator')}"],
    ],
)
async def test_a_missing_or_wrong_key_is_refused(bench: Bench, authorization: list[str]) -> None:
    headers = [("authorization", value) for value in authorization]
    client = await Client(bench.gateway.app, CHAT, body=b"{}", headers=headers)()
    assert client.status == 401
    assert client.error["code"] == "invalid_api_key"
    assert client.headers["www-authenticate"] == "Bearer"


async def test_two_keys_are_ambiguous(bench: Bench) -> None:
    client = await bench.post(CHAT, {}, headers=[("authorization", f"Bearer {key_of('b')}")])()
    assert (client.status, client.error["code"]) == (400, "ambiguous_api_key")


# -- what reaches an engine --------------------------------------------------------------------------------


async def test_the_gateway_writes_salt_and_priority_itself(bench: Bench) -> None:
    await bench.chat("a", model="support", cache_salt="mine", priority=-100)()
    await bench.chat("b", model="support")()
    first, second = bench.engines["shared-0"].seen
    assert len(first["cache_salt"]) == 64 and first["cache_salt"] not in ("mine", second["cache_salt"])
    assert (first["priority"], second["priority"]) == (1, 2)


async def test_fields_that_address_engine_internals_are_dropped(bench: Bench) -> None:
    fields: dict[str, object] = {
        "request_id": "r",
        "session_id": "s",
        "kv_transfer_params": {"do_remote_decode": True},
    }
    await bench.chat(model="support", **fields)()
    assert not bench.engines["shared-0"].seen[0].keys() & fields.keys()


async def test_no_header_of_the_client_reaches_an_engine(bench: Bench) -> None:
    headers = [("x-tenantry-adapter", "b-support"), ("x-tenantry-token", "t"), ("x-request-id", "same")]
    await bench.post(CHAT, {"messages": MESSAGES}, headers=headers)()
    seen = bench.engines["shared-0"].headers[0]
    assert seen["x-tenantry-adapter"] == adapter_id("a-support")
    assert "authorization" not in seen
    assert seen["x-request-id"] != "same"


@pytest.mark.parametrize("request_id", ["a\r\nx-injected: 1", "\x00", "", "x" * 200, "naïve", "<script>"])
async def test_a_request_id_that_is_not_sane_is_replaced(bench: Bench, request_id: str) -> None:
    client = await bench.post(CHAT, {"messages": MESSAGES}, headers=[("x-request-id", request_id)])()
    assert client.status == 200
    assert len(client.headers["x-request-id"]) == 32
    assert "x-injected" not in client.headers


# -- bad bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b"[1]", None, "invalid_json"),
        (b'"text"', None, "invalid_json"),
        (b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', None, "invalid_json"),
        (b'{"messages":NaN}', None, "invalid_json"),
        (b"[" * 100_000, None, "invalid_json"),
        (b'{"messages":[{"x":' + b"[" * 500 + b"]" * 500 + b"}]}", "messages", "request_over_limit"),
        (b"{}", "messages", "missing_required_parameter"),
        (b'{"messages":[]}', "messages", "invalid_value"),
        (b'{"messages":"hello"}', "messages", "invalid_type"),
        (b'{"messages":[{}],"model":7}', "model", "invalid_type"),
        (b'{"messages":[{}],"adapter_id":["x"]}', "adapter_id", "invalid_type"),
        (b'{"messages":[{}],"stream":"yes"}', "stream", "invalid_type"),
        (b'{"messages":[{}],"stream_options":true}', "stream_options", "invalid_type"),
        (b'{"messages":[{}],"n":"2"}', "n", "invalid_type"),
        (b'{"messages":[{}],"n":true}', "n", "invalid_type"),
        (b'{"messages":[{}],"n":0}', "n", "invalid_value"),
        (b'{"messages":[{}],"n":1000000}', "n", "request_over_limit"),
        (b'{"messages":[{}],"n":100}', "n", "max_concurrency"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_field_named(
    bench: Bench, body: bytes, param: str | None, code: str
) -> None:
    client = await bench.post(CHAT, body)()
    assert client.status == 400
    assert (client.error["param"], client.error["code"]) == (param, code)
    assert client.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("field", ["previous_response_id", "background"])
async def test_responses_are_not_stored(bench: Bench, field: str) -> None:
    client = await bench.post("/v1/responses", {"input": "hi", field: "resp_1"})()
    assert (client.status, client.error["param"]) == (400, field)
    await bench.post("/v1/responses", {"input": "hi", "store": True})()
    assert bench.engines["shared-0"].seen[0]["store"] is False


async def test_a_body_that_is_not_json_by_its_own_account_is_refused(bench: Bench) -> None:
    headers = [("authorization", f"Bearer {key_of('a')}"), ("content-type", "text/plain")]
    client = await Client(bench.gateway.app, CHAT, body=b"{}", headers=headers)()
    assert (client.status, client.error["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_ten_megabytes_is_refused(bench: Bench, declared: bool) -> None:
    body = b" " * 10 * 2**20
    headers = [("content-length", str(len(body)))] if declared else []
    client = await bench.post(CHAT, body, headers=headers)()
    assert (client.status, client.error["code"]) == (413, "body_too_large")


async def test_a_client_that_never_finishes_its_body_is_told_so(tmp_path: Path) -> None:
    settings = GatewaySettings(body_timeout_s=0.05, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        client = await bench.post(CHAT, b"").incomplete(b'{"mess')()
        assert (client.status, client.error["code"]) == (408, "body_timeout")


async def test_the_time_in_which_a_client_sends_its_body_is_no_waiting(bench: Bench) -> None:
    body = orjson.dumps({"messages": MESSAGES})
    client = bench.post(CHAT, b"").incomplete(body[:5]).start()
    await asyncio.sleep(0.5)
    client.complete(body[5:])
    await client.done()
    assert int(client.headers["x-tenantry-queue-ms"]) < 250
    assert int(client.headers["openai-processing-ms"]) < 450


async def test_a_client_that_leaves_in_mid_body_is_forgotten(bench: Bench) -> None:
    client = bench.post(CHAT, b"").incomplete(b'{"mess').start()
    client.leave()
    await client.done()
    assert client.status == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/load_lora_adapters", 404),
        ("GET", "/internal/adapters", 404),
        ("POST", "/collective_rpc", 404),
        ("POST", "/sleep", 404),
        ("GET", "/docs/openapi.json", 404),
        ("POST", "/", 405),
        ("POST", "/docs", 405),
    ],
)
async def test_no_other_route_is_served(bench: Bench, method: str, path: str, status: int) -> None:
    headers = [("authorization", f"Bearer {key_of('a')}")]
    client = await Client(bench.gateway.app, path, method=method, headers=headers)()
    assert client.status == status
    assert client.error["type"] == "invalid_request_error"


# -- what engines refuse -----------------------------------------------------------------------------------


async def test_what_vllm_finds_wrong_is_passed_on_under_the_tenants_name(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.refuse_request
    client = await bench.chat(model="support", max_tokens=10**6)()
    assert client.status == 400
    assert client.error["message"] == "max_tokens is too large for support"
    assert client.error["param"] == "max_tokens"


async def test_a_broken_request_shows_nothing_of_the_engine(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.break_down
    client = await bench.chat(model="support")()
    assert (client.status, client.error["code"]) == (502, "engine_failed")
    assert b"/secret" not in client.body
    assert bench.gateway.dispatcher.replicas["shared-0"].ready, "one bad request must not cost the replica"


async def test_an_adapter_that_cannot_be_loaded_is_told_without_its_path(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.refuse_adapter
    client = await bench.chat(model="support")()
    assert (client.status, client.error["code"]) == (503, "adapter_unavailable")
    assert 30 <= int(client.headers["retry-after"]) <= 45
    assert b"/secret" not in client.body


# -- caps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        (Caps(max_concurrency=2), "max_concurrency"),
        (Caps(max_concurrency_per_model=2), "max_concurrency_per_model"),
    ],
)
async def test_a_cap_answers_429_with_its_name_and_when_to_retry(
    tmp_path: Path, caps: Caps, cap: str
) -> None:
    async with bench_of(small_fleet(caps=caps), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        held = [bench.chat(model="support").start() for _ in range(2)]
        await eventually(lambda: engine.running == 2)
        refused = await bench.chat(model="support")()
        assert (refused.status, refused.error["code"]) == (429, cap)
        assert refused.error["type"] == "rate_limit_error"
        assert int(refused.headers["retry-after"]) >= 1
        other = bench.chat("b", model="support").start()  # the cap is the tenant's own
        await eventually(lambda: engine.running == 3)
        engine.release.set()
        assert [(await client.done()).status for client in [*held, other]] == [200, 200, 200]


async def test_choices_count_as_sequences(tmp_path: Path) -> None:
    async with bench_of(small_fleet(caps=Caps(max_concurrency=4)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        held = bench.chat(model="support", n=3).start()
        await eventually(lambda: engine.running == 1)
        assert (await bench.chat(model="support", n=2)()).status == 429
        engine.release.set()
        await held.done()


async def test_a_full_queue_answers_429(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1, caps=Caps(max_queued=1)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        clients = [bench.chat(model="support").start() for _ in range(2)]
        await eventually(lambda: len(bench.gateway.dispatcher.queued()) == 1)
        refused = await bench.chat(model="support")()
        assert (refused.status, refused.error["code"]) == (429, "max_queued")
        engine.release.set()
        assert [(await client.done()).status for client in clients] == [200, 200]
        assert int(clients[1].headers["x-tenantry-queue-ms"]) >= 0


async def test_what_waits_is_bounded_by_the_memory_that_it_holds(tmp_path: Path) -> None:
    scheduler = SchedulerSettings(max_queued_bytes=6 * HELD_BYTES)
    settings = GatewaySettings(log_requests=False, scheduler=scheduler)
    async with bench_of(small_fleet(max_num_seqs=1, settings=settings), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        clients = [bench.chat(model="support").start() for _ in range(3)]
        await eventually(lambda: sum(bench.gateway.dispatcher.queued().values()) == 2)
        refused = await bench.chat(model="support")()
        assert (refused.status, refused.error["code"]) == (503, "overloaded"), "half of it is one tenant's"
        for flight in bench.gateway.flights:
            assert not flight._question.call.payload, "what the client sent is let go"
            assert flight.ticket.request.size_bytes == HELD_BYTES + len(flight._question.body)
        engine.release.set()
        assert [(await client.done()).status for client in clients] == [200, 200, 200]


async def test_a_request_that_waits_too_long_expires(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1, caps=Caps(queue_timeout_s=0.05)), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        running = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        expired = await bench.chat(model="support")()
        assert (expired.status, expired.error["code"]) == (503, "queue_timeout")
        assert "retry-after" in expired.headers
        engine.release.set()
        await running.done()
        assert ("expired", "queue_timeout") in bench.outcomes()


async def test_no_more_adapters_are_in_flight_than_the_replica_has_slots(tmp_path: Path) -> None:
    async with bench_of(small_fleet(slots=1), tmp_path) as bench:
        engine = bench.engines["shared-0"]
        engine.behave = engine.hold
        first = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        second, third = bench.chat(model="sales").start(), bench.chat(model="support").start()
        await eventually(lambda: engine.running == 2)
        assert {body["model"] for body in engine.seen} == {adapter_id("a-support")}
        engine.release.set()
        assert [(await c.done()).status for c in (first, second, third)] == [200, 200, 200]


# -- metrics -----------------------------------------------------------------------------------------------


async def test_metrics_count_every_request_by_model_adapter_tenant_and_replica(bench: Bench) -> None:
    await bench.chat(model="support", stream=True)()
    await bench.chat(model="sales")()
    await bench.chat(model="nobody-has-this")()
    page = (await bench.get("/metrics", key=key_of("operator"))()).body.decode()
    support = 'pool="shared",tenant="a",model="support",adapter="a-support",version="1"'
    assert f'tenantry_requests_total{{{support},outcome="completed",reason=""}} 1.0' in page
    assert f"tenantry_completion_tokens_total{{{support}}} 3.0" in page
    assert f"tenantry_time_per_output_token_seconds_count{{{support}}} 1.0" in page
    sales = 'pool="shared",tenant="a",model="sales",adapter="a-sales",version="1"'
    assert f"tenantry_prompt_tokens_total{{{sales}}} 7.0" in page
    assert 'tenantry_replica_requests_total{pool="shared",replica="shared-0",outcome="completed"} 2.0' in page
    assert 'tenantry_refusals_total{status="404",reason="model_not_found"} 1.0' in page
    assert 'tenantry_replica_ready{pool="alone",replica="alone-0"} 1.0' in page
    assert "nobody-has-this" not in page


async def test_a_scraper_that_asks_for_openmetrics_gets_it(bench: Bench) -> None:
    await bench.chat(model="support", stream=True)()
    headers = [("authorization", f"Bearer {key_of('operator')}"), ("accept", "application/openmetrics-text")]
    page = await Client(bench.gateway.app, "/metrics", method="GET", headers=headers)()
    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = openmetrics_families(page.body)
    assert families["tenantry_requests"].type == "counter"
    assert families["tenantry_time_to_first_token_seconds"].unit == "seconds"
    assert (
        (await bench.get("/metrics", key=key_of("operator"))())
        .headers["content-type"]
        .startswith("text/plain")
    )


async def test_a_stream_that_stops_is_counted_as_a_stall_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.flights.running.STREAM_STALL_S", 0.3)
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold_mid_stream
    stream = bench.chat(model="support", stream=True).start()
    stalls = 'tenantry_replica_stream_stalls_total{pool="shared",replica="shared-0"}'
    await eventually(lambda: f"{stalls} 1.0" in bench.gateway.metrics.page().decode(), "the stall")
    await asyncio.sleep(0.6)  # twice the sweep
    assert f"{stalls} 1.0" in bench.gateway.metrics.page().decode()
    engine.release.set()
    await stream.done()


async def test_an_engines_own_page_is_behind_the_gateway(bench: Bench) -> None:
    page = await bench.get("/metrics/shared-0", key=key_of("operator"))()
    assert page.json() == {"vllm": "shared-0"}
    assert (await bench.get("/metrics/nobody", key=key_of("operator"))()).status == 404


@pytest.mark.parametrize(
    ("access", "peer", "forwarded", "status"),
    [
        (MetricsAccess.OPERATOR, "127.0.0.1", False, 401),
        (MetricsAccess.LOOPBACK, "127.0.0.1", False, 200),
        (MetricsAccess.LOOPBACK, "::1", False, 200),
        (MetricsAccess.LOOPBACK, "::ffff:127.0.0.1", False, 200),
        (MetricsAccess.LOOPBACK, "::ffff:10.0.0.9", False, 401),
        (MetricsAccess.LOOPBACK, "127.0.0.1", True, 401),
        (MetricsAccess.LOOPBACK, "10.0.0.9", False, 401),
        (MetricsAccess.OPEN, "10.0.0.9", False, 200),
    ],
)
async def test_metrics_name_every_tenant_and_are_guarded(
    tmp_path: Path, access: MetricsAccess, peer: str, forwarded: bool, status: int
) -> None:
    settings = GatewaySettings(metrics_access=access, log_requests=False)
    async with bench_of(small_fleet(settings=settings), tmp_path) as bench:
        headers = [("x-forwarded-for", "127.0.0.1")] if forwarded else []
        client = await Client(bench.gateway.app, "/metrics", method="GET", headers=headers, peer=peer)()
        assert client.status == status
        as_tenant = await bench.get("/metrics", key=key_of("a"), peer="10.0.0.9")()
        assert as_tenant.status == (200 if access is MetricsAccess.OPEN else 401)


# -- at once -----------------------------------------------------------------------------------------------


async def test_two_hundred_requests_at_once_get_their_own_answers(tmp_path: Path) -> None:
    async with bench_of(small_fleet(slots=1, caps=Caps(max_concurrency=200)), tmp_path) as bench:
        cases = [("a", "support"), ("a", "sales"), ("a", "plain"), ("b", "support"), ("c", "support")] * 40
        clients = [bench.chat(t, model=model, stream=i % 2 == 0) for i, (t, model) in enumerate(cases)]
        await asyncio.gather(*(client() for client in clients))
        for (tenant, model), client in zip(cases, clients, strict=True):
            wanted = "base" if model == "plain" else f"{tenant}-{model}"
            assert client.status == 200
            assert wanted.encode() in client.body


# -- what a prompt is taken for ----------------------------------------------------------------------------

LONG = "x" * 1_000_000
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}
LARGE_BODIES = {
    "unknown field": {"some_client_metadata": LONG},
    "picture": {"messages": [{"role": "user", "content": [PICTURE]}]},
    "text that is too long": {"messages": [{"role": "user", "content": LONG}]},
}


@pytest.mark.parametrize("fields", LARGE_BODIES.values(), ids=LARGE_BODIES.keys())
async def test_a_large_body_reserves_no_more_than_its_prompt_can_need(
    bench: Bench, fields: dict[str, Any]
) -> None:
    engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
    engine.kv_tokens, engine.max_model_len = 8192, 2048
    await eventually(lambda: replica.engine.max_model_len == 2048)
    engine.behave = engine.hold
    large = bench.chat(model="support", **fields).start()
    await eventually(lambda: engine.running == 1)
    assert replica.engine.tokens <= 2048 + 300, "and what its answer is expected to need"
    other = bench.chat("b", model="support").start()
    await eventually(lambda: engine.running == 2, "the neighbour's start")
    engine.release.set()
    assert [(await client.done()).status for client in (large, other)] == [200, 200]


@pytest.mark.parametrize("fields", LARGE_BODIES.values(), ids=LARGE_BODIES.keys())
async def test_a_large_body_is_refused_for_no_more_tokens_than_its_prompt_can_have(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    caps = Caps(tokens_per_minute=5000, max_queued_tokens=5000)
    async with bench_of(small_fleet(caps=caps), tmp_path) as bench:
        bench.engines["shared-0"].max_model_len = 2048
        await eventually(lambda: bench.gateway.dispatcher.replicas["shared-0"].engine.max_model_len == 2048)
        assert (await bench.chat(model="support", **fields)()).status == 200


async def test_what_is_surely_too_long_is_refused_at_once_and_waits_for_nobody(tmp_path: Path) -> None:
    async with bench_of(small_fleet(max_num_seqs=1), tmp_path) as bench:
        engine, replica = bench.engines["shared-0"], bench.gateway.dispatcher.replicas["shared-0"]
        engine.max_model_len, engine.chars_per_token = 2048, 16
        await eventually(lambda: replica.engine.chars_per_token == 16)
        engine.behave = engine.hold
        running = bench.chat(model="support").start()
        await eventually(lambda: engine.running == 1)
        bodies: list[tuple[str, dict[str, Any]]] = [
            (CHAT, {"messages": [{"role": "user", "content": LONG}]}),
            ("/v1/completions", {"prompt": [1] * 2049}),
        ]
        for path, fields in bodies:
            client = await bench.post(path, {"model": "support", **fields})()
            assert (client.status, client.error["code"]) == (400, "context_length_exceeded")
        engine.release.set()
        assert (await running.done()).status == 200
