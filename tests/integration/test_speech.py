"""Recordings: metered and guarded as chats are; no form, however broken, harms anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import protocol
from engines.forms import BOUNDARY
from engines.protocol import Kind
from fleet.content import Guard, Media, OnFailure
from fleet.types import Fleet
from tests.fakes import (
    Client,
    Send,
    adapter_id,
    begin_stream,
    eventually,
    key_of,
    respond,
    small_fleet,
    sse,
)
from tests.forms import RECORDING, TYPE, form, part
from tests.integration.conftest import Bench, bench_of

KINDS = [Kind.TRANSCRIPTION, Kind.TRANSLATION]
TOLD = {protocol.USAGE_HEADER: json.dumps({"usage": {"prompt_tokens": 104, "completion_tokens": 6}})}
# As vLLM 0.32 writes them (`entrypoints/speech_to_text`).
WHOLE: dict[str, Any] = {"text": "I am here", "usage": {"type": "duration", "seconds": 1}}
TEXT = "tenantry_prompt_tokens_total", "tenantry_completion_tokens_total", "tenantry_usage_estimated_total"


def ask(bench: Bench, kind: Kind, tenant: str = "a", /, body: bytes | None = None, **fields: str) -> Client:
    headers = [("authorization", f"Bearer {key_of(tenant)}"), ("content-type", TYPE)]
    sent = form({"model": "support", **fields}) if body is None else body
    return Client(bench.gateway.app, kind.value, body=sent, headers=headers)


async def answer(body: dict[str, Any], send: Send) -> None:
    await respond(send, 200, WHOLE, TOLD)


async def answer_in_events(body: dict[str, Any], send: Send) -> None:
    """As vLLM's stream with usage in every event."""
    await begin_stream(send)
    event: dict[str, Any] = {"id": "transcribe-x", "object": "transcription.chunk", "created": 1}
    usage: dict[str, int] = {}
    for count, text in enumerate(("I ", "am ", "here"), start=1):
        usage = {"prompt_tokens": 104, "total_tokens": 104 + count, "completion_tokens": count}
        choices = [{"delta": {"content": text}}]
        told = {**event, "model": body["model"], "choices": choices, "usage": usage}
        await send({"type": "http.response.body", "body": sse(told), "more_body": True})
    told = {**event, "model": body["model"], "choices": [], "usage": usage}
    await send({"type": "http.response.body", "body": sse(told) + b"data: [DONE]\n\n"})


def used(bench: Bench) -> list[float]:
    bench.gateway.ended.flush()
    lines = bench.gateway.metrics.page().decode().splitlines()
    return [
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")) for name in TEXT
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_engine_counted_of_a_whole_answer_is_metered(bench: Bench, kind: Kind) -> None:
    bench.engines["shared-0"].behave = answer
    client = await ask(bench, kind)()
    assert (client.status, client.json()) == (200, WHOLE) and protocol.USAGE_HEADER not in client.headers
    assert used(bench) == [104, 6, 0]


@pytest.mark.parametrize("headers", [{}, {protocol.USAGE_HEADER: "[]"}, {protocol.USAGE_HEADER: "{"}])
async def test_what_an_engine_does_not_count_is_estimated(bench: Bench, headers: dict[str, str]) -> None:
    async def uncounted(body: dict[str, Any], send: Send) -> None:
        await respond(send, 200, WHOLE, headers)

    bench.engines["shared-0"].behave = uncounted
    assert (await ask(bench, Kind.TRANSCRIPTION)()).status == 200
    prompt, completion, estimated = used(bench)
    assert prompt == 750 and completion >= 1 and estimated == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("usage", ["", "true"])
async def test_a_stream_is_relayed_and_metered(bench: Bench, kind: Kind, usage: str) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = answer_in_events
    client = await ask(bench, kind, stream="true", stream_include_usage=usage)()
    assert client.status == 200 and client.headers["content-type"].startswith("text/event-stream")
    events = [line[6:] for line in client.body.decode().splitlines() if line.startswith("data: ")]
    told = [json.loads(event) for event in events[:-1]]
    assert "".join(each["choices"][0]["delta"]["content"] for each in told if each["choices"]) == "I am here"
    assert {each["model"] for each in told} == {"support"} and events[-1] == "[DONE]"
    assert ["usage" in each for each in told] == [False] * 3 + [True] * bool(usage)
    assert used(bench) == [104, 3, 0]
    assert {name: engine.seen[0][name] for name in engine.seen[0] if name.startswith("stream")} == {
        "stream": "true",
        "stream_include_usage": "true",
        "stream_continuous_usage_stats": "true",
    }
    assert bench.at_rest


@pytest.mark.parametrize("asked", ["json", "text", "verbose_json", "diarized_json"])
async def test_every_format_is_the_engines_own(bench: Bench, asked: str) -> None:
    verbose = {"duration": 1.0, "language": "en", "text": "I", "segments": [{"id": 0, "text": "I"}]}

    async def formatted(body: dict[str, Any], send: Send) -> None:
        await respond(send, 200, verbose if body["response_format"] != "json" else WHOLE, TOLD)

    bench.engines["shared-0"].behave = formatted
    body = form(
        {"model": "support", "response_format": asked, "timestamp_granularities[]": ["word", "segment"]}
    )
    client = await ask(bench, Kind.TRANSCRIPTION, body=body)()
    assert client.json() == (verbose if asked != "json" else WHOLE)
    assert bench.engines["shared-0"].seen[0]["timestamp_granularities[]"] == ["word", "segment"]


async def test_a_format_that_the_engine_does_not_write_is_its_refusal(bench: Bench) -> None:
    async def refuse(body: dict[str, Any], send: Send) -> None:
        message = "Currently only support response_format: `text`, `json`"
        error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
        await respond(send, 400, {"error": error})

    bench.engines["shared-0"].behave = refuse
    client = await ask(bench, Kind.TRANSCRIPTION, response_format="srt")()
    assert client.status == 400 and "response_format" in client.error["message"]
    assert used(bench) == [0, 0, 0]


def with_media(fleet: Fleet, media: Media) -> Fleet:
    models = {name: replace(model, media=media) for name, model in fleet.base_models.items()}
    return replace(fleet, base_models=models)


async def test_a_recording_is_no_larger_than_the_models_media_and_the_body_no_larger_than_bodies(
    tmp_path: Path,
) -> None:
    async with bench_of(with_media(small_fleet(), Media(max_mib=1)), tmp_path) as bench:
        bench.engines["shared-0"].behave = answer
        large = form({"model": "support"}, b"x" * (2**20 + 1))
        refused = await ask(bench, Kind.TRANSCRIPTION, body=large)()
        assert (refused.status, refused.error["param"]) == (400, "file")
        fits = form({"model": "support"}, b"x" * 2**20)
        assert (await ask(bench, Kind.TRANSCRIPTION, body=fits)()).status == 200
        too_large = form({"model": "support"}, b"x" * (4 * 2**20))
        assert (await ask(bench, Kind.TRANSCRIPTION, body=too_large)()).status == 413
        assert len(bench.engines["shared-0"].seen) == 1 and bench.at_rest


WRONG = {
    "cut off": form({"model": "support"})[:-9],
    "empty": b"",
    "no form": b'{"model": "support"}',
    "two files": part("file", b"1", '; filename="a"') + form({"model": "support"}),
    "a huge field": form({"model": "support", "prompt": "x" * 70_000}),
    "a field twice": part("model", b"plain") + form({"model": "support"}),
    "a file in no field": form({"model": "support"}).replace(b' name="file";', b""),
    "a text in place of the file": form({"model": "support"}, None) + part("file", b""),
    "no file": form({"model": "support"}, None),
    "an empty file": form({"model": "support"}, b""),
    "the boundary of the engine's form": form({"model": "support"}, b"\r\n--" + BOUNDARY + b"--\r\n"),
    "a header too long": part("model", b"x", f'; x="{"y" * 5000}"') + form({}),
    "many fields": part("x", b"") * 70 + form({"model": "support"}),
    "a number that is none": form({"model": "support", "temperature": "nan"}),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_that_is_wrong_is_a_400_and_reaches_no_engine(
    bench: Bench, kind: Kind, body: bytes
) -> None:
    client = await ask(bench, kind, body=body)()
    assert client.status == 400, client.body
    assert client.error["message"] and "passwd" not in client.body.decode()
    assert bench.engines["shared-0"].seen == [] and bench.at_rest


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain"])
async def test_what_is_no_form_is_told_so(bench: Bench, content_type: str) -> None:
    headers = [("authorization", f"Bearer {key_of('a')}"), ("content-type", content_type)]
    client = await Client(bench.gateway.app, Kind.TRANSCRIPTION.value, body=b"{}", headers=headers)()
    assert (client.status, client.error["code"]) == (415, "unsupported_media_type")


NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a\\b.wav",
    "x" * 3000,
    "a\nb: c",
    'a"; name="model',
    "日本.wav",
    "",
]


@pytest.mark.parametrize("name", NAMES)
async def test_no_name_of_a_file_goes_anywhere(
    bench: Bench, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.engines["shared-0"].behave = answer
    client = await ask(bench, Kind.TRANSCRIPTION, body=form({"model": "support"}, RECORDING, name))()
    assert client.status in (200, 400)
    for seen in bench.engines["shared-0"].seen:
        assert seen == {"model": adapter_id("a-support"), "file": ("recording", RECORDING)}
    bench.gateway.ended.flush()
    assert not name or len(name) < 3 or name not in caplog.text + client.body.decode()


async def test_a_client_that_leaves_in_mid_upload_leaves_nothing(bench: Bench) -> None:
    whole = form({"model": "support"}, b"x" * 100_000)
    client = ask(bench, Kind.TRANSCRIPTION, body=whole).incomplete(whole[:50_000]).start()
    await asyncio.sleep(0)
    client.leave()
    await client.done()
    assert client.status == 0 and bench.engines["shared-0"].seen == [] and bench.at_rest


async def test_a_client_that_leaves_while_it_is_heard_leaves_nothing(bench: Bench) -> None:
    engine = bench.engines["shared-0"]
    engine.behave = engine.hold
    client = ask(bench, Kind.TRANSCRIPTION).start()
    await eventually(lambda: engine.running == 1)
    client.leave()
    await client.done()
    await eventually(lambda: bench.at_rest)
    assert engine.aborted == 1


async def test_an_upload_that_stops_is_ended(tmp_path: Path) -> None:
    fleet = small_fleet()
    fleet = replace(fleet, gateway=replace(fleet.gateway, body_timeout_s=0.05))
    async with bench_of(fleet, tmp_path) as bench:
        whole = form({"model": "support"})
        client = ask(bench, Kind.TRANSCRIPTION, body=whole).incomplete(whole[:50]).start()
        await client.done()
        assert (client.status, client.error["code"]) == (408, "body_timeout") and bench.at_rest


async def test_a_long_form_is_read_beside_others(bench: Bench) -> None:
    bench.engines["shared-0"].behave = answer
    recording = bytes(range(256)) * 8000
    long = ask(bench, Kind.TRANSCRIPTION, body=form({"model": "support"}, recording)).start()
    assert (await ask(bench, Kind.TRANSLATION)()).status == 200
    assert (await long.done()).status == 200
    assert ("recording", recording) in [seen["file"] for seen in bench.engines["shared-0"].seen]


async def test_a_recording_that_breaks_engines_is_refused_the_next_time(tmp_path: Path) -> None:
    async with bench_of(small_fleet(), tmp_path) as bench:
        for engine in bench.engines.values():

            async def break_on_it(body: dict[str, Any], send: Send) -> None:
                if body["file"][1] == RECORDING:
                    await respond(send, 500, {"error": {"message": "x"}})
                else:
                    await respond(send, 200, WHOLE, TOLD)

            engine.behave = break_on_it
        first = await ask(bench, Kind.TRANSCRIPTION)()
        again = await ask(bench, Kind.TRANSCRIPTION)()
        assert [each.error["code"] for each in (first, again)] == ["request_breaks_engine"] * 2
        other = form({"model": "support"}, b"another")
        assert (await ask(bench, Kind.TRANSCRIPTION, body=other)()).status == 200


async def test_a_guard_sees_the_prompt_and_what_was_heard(tmp_path: Path) -> None:
    seen: list[tuple[str, list[str]]] = []

    async def look(found: Sequence[str], *, of: str, tenant: str, model: str) -> list[str]:
        seen.append((of, list(found)))
        return ["violence"] if "bomb" in " ".join(found) else []

    fleet = small_fleet()
    guards = {"a": Guard(OnFailure.REFUSE, plugin="ours")}
    fleet = replace(fleet, gateway=replace(fleet.gateway, guards=guards))
    async with bench_of(fleet, tmp_path) as bench:
        bench.gateway.app.inference.guards._plugins["ours"] = look
        bench.engines["shared-0"].behave = answer
        assert (await ask(bench, Kind.TRANSCRIPTION, prompt="names", hotwords="Ann")()).status == 200
        assert seen == [("prompt", ["names", "Ann"]), ("answer", ["I am here"])]
        refused = await ask(bench, Kind.TRANSCRIPTION, prompt="bomb")()
        assert (refused.status, refused.error["code"]) == (400, "prompt_flagged")
