"""The engine's benchmark: what it asks of both sides, and how it reads."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.engine import Plan, engine_name, engine_side, side
from benchmarks.engine_report import ENGINE, GATEWAY, render, tokens_per_s
from benchmarks.results import LoadResult
from benchmarks.rounds import Measurement, Rounds
from benchmarks.service import addresses_in, serve_command, serve_environment
from benchmarks.tools import ToolError
from engines.protocol import ADAPTER_HEADER, TOKEN_HEADER
from engines.residency import Residency
from tests.unit.benchmarks.loads import NO_TIMES, load_result

PLAN = Plan(rounds=2, seconds=1.0, seed=1)
HELD = ("acme-support@00", "globex-support@01", "acme-support@02", "acme/support@03")


def result(ok: int, *, p50: float = 5.0, tokens: int = 64, chunks: int = 0) -> LoadResult:
    times = NO_TIMES.model_copy(update={"count": ok, "p50": p50})
    return load_result(ok, tokens=tokens, chunks=chunks, times=times)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """An engine that gives one answer to everything: its URL, and the tokens it was shown."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers[TOKEN_HEADER])
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", tokens
        finally:
            server.shutdown()
            thread.join()


def test_both_sides_are_asked_in_every_round_and_who_begins_alternates() -> None:
    steps = [(number, mode.name, name) for number, mode, name in PLAN.steps()]
    assert set(Counter(steps).values()) == {1}
    assert [name for number, mode, name in steps if mode == "streams"] == [GATEWAY, ENGINE, ENGINE, GATEWAY]


def test_both_sides_get_the_same_requests_but_for_the_model() -> None:
    mode = PLAN.modes()[1]
    ours, theirs = PLAN.bodies(mode, "support", 0), PLAN.bodies(mode, "acme-support", 0)
    assert ours.replace('"support"', '"acme-support"') == theirs
    first = json.loads(ours.splitlines()[0])
    assert (first["max_tokens"], first["ignore_eos"], first["stream"]) == (64, True, True)
    assert first["stream_options"] == {"include_usage": True}


def test_no_prompt_comes_twice_in_a_round_or_again_in_the_next() -> None:
    mode = PLAN.modes()[0]
    lines = [*PLAN.bodies(mode, "m", 0).splitlines(), *PLAN.bodies(mode, "m", 1).splitlines()]
    assert len(set(lines)) == len(lines)


def test_tokens_come_from_the_usage_and_without_one_from_the_chunks() -> None:
    assert tokens_per_s(result(10)) == 320.0
    assert tokens_per_s(result(10, tokens=0, chunks=600)) == 300.0


def test_the_table_leaves_out_what_a_mode_does_not_have() -> None:
    rows = [Measurement("whole answers", name, result(10)) for name in (GATEWAY, ENGINE)]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(Rounds(rows)))
    assert "whole answers: output tokens/s" in capture.get()
    assert "first chunk" not in capture.get()


def test_a_side_is_an_address_with_headers_and_a_model() -> None:
    target = side(ENGINE, "unix:/run/e.sock", ["x: 1"], "m")
    assert (target.endpoint.address, target.endpoint.headers, target.models) == (
        "unix:/run/e.sock",
        ("x: 1",),
        ("m",),
    )
    with pytest.raises(ToolError):
        side(ENGINE, "ftp://x", [], "m")


def test_the_direct_side_names_the_version_as_the_engine_does() -> None:
    body = json.dumps(Residency("w", 1, 3, host=HELD).to_json()).encode()
    with answering(200, body) as (url, tokens):
        target = engine_side(url, [f"{TOKEN_HEADER}: t"], "globex-support")
    assert target.models == ("globex-support@01",)
    assert target.endpoint.headers == (f"{TOKEN_HEADER}: t", f"{ADAPTER_HEADER}: globex-support@01")
    assert tokens == ["t"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [(401, b"{}", "give it its token"), (200, b"{}", "does not say"), (200, b"nonsense", "does not say")],
)
def test_an_engine_that_does_not_say_what_it_holds_is_complained_about(
    status: int, body: bytes, message: str
) -> None:
    with answering(status, body) as (url, _), pytest.raises(ToolError, match=message):
        engine_side(url, [f"{TOKEN_HEADER}: t"], "acme-support")


def test_an_engine_that_is_not_there_is_complained_about(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="does not say what it holds"):
        engine_side(f"unix:{tmp_path}/none.sock", [], "acme-support")


def test_of_several_versions_the_one_used_last_is_asked() -> None:
    assert engine_name("acme-support", HELD) == "acme-support@02"
    assert engine_name("acme/support", HELD) == "acme/support@03"


def test_an_adapter_the_engine_does_not_hold_is_refused_with_those_it_does() -> None:
    with pytest.raises(ToolError, match="it has: globex-support@01"):
        engine_name("support", HELD[1:2])
    with pytest.raises(ToolError, match="it has: none"):
        engine_name("support", ())


def test_the_engines_addresses_are_where_bentoml_leaves_them() -> None:
    environment = {"BENTOML_RUNNER_MAP": '{"shared-0": "file:///tmp/x/1.sock"}', "HOME": "/"}
    assert addresses_in(environment) == {"shared-0": "file:///tmp/x/1.sock"}
    assert addresses_in({}) == {}


def test_one_pool_is_served_where_one_is_named() -> None:
    assert "pool=shared" in serve_command(1, Path("f.yaml"), "shared")
    assert not [word for word in serve_command(1, Path("f.yaml")) if word.startswith("pool=")]


def test_a_benchmarks_service_keeps_its_state_in_the_benchmarks_own_folder(tmp_path: Path) -> None:
    environment = serve_environment(tmp_path)
    assert Path(environment["TENANTRY_STATE"]).parent == tmp_path
    assert Path(environment["BENTOML_HOME"]).is_dir()
