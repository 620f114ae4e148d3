"""The C tools count what a server sends, however it arrives; the mock engine speaks like vLLM."""

from __future__ import annotations

import ctypes
import http.client
import json
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import tools
from benchmarks.processes import free_port
from benchmarks.results import LoadResult
from benchmarks.tools import Endpoint, Load, ToolError, build_tool, load_command, read_result
from engines.protocol import ADAPTERS_PATH, TRIAL_PATH
from engines.residency import DesiredAdapters, EngineAdapter, Residency, TrialReport

CHAT = '{"model":"m","messages":[{"role":"user","content":"a \\"stream\\": true ]}"}]'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tools are compiled, once."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def mock_port(build: Path) -> Iterator[int]:
    """A running mock engine."""
    port = free_port()
    with subprocess.Popen([build_tool("mock", build), "--listen", f"127.0.0.1:{port}"]) as process:
        _wait_for(port)
        yield port
        process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(10_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("the mock engine does not listen")


def _post(port: int, body: str, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def _events(answer: bytes) -> list[str]:
    return [event.removeprefix("data: ") for event in answer.decode().split("\n\n") if event]


def _count(build: Path, answers: bytes, *, cut: int, requests: int = 1) -> LoadResult:
    """Serve fixed bytes to the load generator, `cut` bytes at a time, and return what it counted."""
    bodies = build / "bodies.jsonl"
    bodies.write_text(CHAT + "}\n")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65536)
                for start in range(0, len(answers), cut):
                    connection.sendall(answers[start : start + cut])

        thread = threading.Thread(target=serve)
        thread.start()
        command = [str(build_tool("load", build)), "--requests", str(requests), "--bodies", str(bodies)]
        command += ["--connect", f"127.0.0.1:{server.getsockname()[1]}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        thread.join()
    return read_result(done.stdout)


def _chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


STREAM = _chunked(
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"cont',
    b'ent":"b"}}]}\n\n',
    b'data: {"choices":[],"usage":{"completion_tokens":17}}\n\n',
    b"data: [DONE]\n\n",
)


# -- the mock engine -----------------------------------------------------------------------------------------


def test_a_completion_names_the_model_and_as_many_tokens_as_were_asked_for(mock_port: int) -> None:
    answer = json.loads(_post(mock_port, CHAT + ',"max_tokens":7}'))
    assert answer["model"] == "m"
    assert answer["usage"] == {
        "prompt_tokens": 32,
        "total_tokens": 39,
        "completion_tokens": 7,
        "prompt_tokens_details": None,
    }


def test_a_stream_has_a_role_its_content_a_finish_and_an_end(mock_port: int) -> None:
    events = _events(_post(mock_port, CHAT + ',"stream":true,"max_completion_tokens":2}'))
    deltas = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert [delta["delta"].get("content") for delta in deltas] == ["", " token", " token", ""]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert deltas[-1]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"


def test_usage_comes_where_it_is_asked_for(mock_port: int) -> None:
    options = ',"stream":true,"max_tokens":3,"stream_options":{"include_usage":true}}'
    last = json.loads(_events(_post(mock_port, CHAT + options))[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3


def test_running_usage_counts_every_token_across_widths(mock_port: int) -> None:
    options = ',"stream":true,"max_tokens":120,"stream_options":{"continuous_usage_stats":true}}'
    usages = [json.loads(event)["usage"] for event in _events(_post(mock_port, CHAT + options))[1:-2]]
    assert [usage["completion_tokens"] for usage in usages] == list(range(1, 121))
    assert [usage["total_tokens"] for usage in usages] == list(range(33, 153))


def test_a_body_in_chunks_that_arrives_byte_by_byte_is_understood(mock_port: int) -> None:
    body = _chunked(CHAT.encode(), b',"max_tokens":5}')
    with socket.create_connection(("127.0.0.1", mock_port), timeout=5) as connection:
        request = b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + body
        for byte in request:
            connection.sendall(bytes([byte]))
        assert b'"completion_tokens":5' in connection.recv(65536)


@pytest.mark.parametrize("path", ["/readyz", "/internal/ready?x=1"])
def test_it_is_ready(mock_port: int, path: str) -> None:
    assert _post(mock_port, "{}", path) == b"{}"


@pytest.mark.parametrize("revision", [2**53 + 1, 7])
def test_it_confirms_the_adapters_it_was_told_and_holds_none(mock_port: int, revision: int) -> None:
    adapters = (EngineAdapter('a {"revision": 1}@0', "/f"), EngineAdapter("b@1", "/g", pinned=True))
    told = json.dumps(DesiredAdapters(revision, adapters).to_json())
    for method, body in (("PUT", told), ("GET", "")):
        answer = json.loads(_post(mock_port, body, ADAPTERS_PATH, method))
        assert Residency.from_json(answer) == Residency("mock", 1, revision)


def test_every_adapter_passes_its_trial(mock_port: int) -> None:
    assert TrialReport.from_json(json.loads(_post(mock_port, '{"id":"a@0"}', TRIAL_PATH))).passed


def test_what_vllm_offers_beside_completions_is_not_there(mock_port: int) -> None:
    assert b"error" in _post(mock_port, CHAT + "}", "/v1/chat/completions/render")


@pytest.mark.parametrize("body", ["", "[]", "null", '{"model":', '{"model":3,"max_tokens":null,"stream":'])
def test_a_body_that_makes_no_sense_still_gets_an_answer(mock_port: int, body: str) -> None:
    assert json.loads(_post(mock_port, body))["model"] == "mock"


def test_what_is_not_http_is_hung_up_on(mock_port: int) -> None:
    with socket.create_connection(("127.0.0.1", mock_port), timeout=5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(100) == b""


# -- the load generator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 7, 100_000])
def test_a_stream_is_counted_however_it_is_cut(build: Path, cut: int) -> None:
    result = _count(build, SSE + STREAM, cut=cut)
    assert (result.ok, result.events, result.chunks, result.completion_tokens) == (1, 4, 2, 17)
    assert result.first_chunk_ms.count == 1
    assert result.gap_ms.count == 1


@pytest.mark.parametrize("cut", [1, 100_000])
def test_a_plain_answer_gives_its_usage(build: Path, cut: int) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens": 64}}'
    result = _count(build, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, cut=cut)
    assert (result.ok, result.completion_tokens, result.errors) == (1, 64, 0)


def test_a_body_may_end_with_its_connection(build: Path) -> None:
    assert _count(build, HEAD + b'\r\n{"choices":[]}', cut=9).ok == 1


def test_a_refusal_is_an_error_with_its_reason(build: Path) -> None:
    answer = b'HTTP/1.1 429 Too Many\r\ncontent-length: 9\r\n\r\n"slow up"'
    result = _count(build, answer, cut=100)
    assert (result.requests, result.errors, result.by_status) == (1, 1, {429: 1})
    assert result.first_error == '429: "slow up"'


@pytest.mark.parametrize(
    ("answers", "field"),
    [
        (SSE + STREAM[:-40], "broken"),
        (SSE + _chunked(b"data: {}\n\n"), "bad_content"),
        (HEAD + b"content-length: 2\r\n\r\n{}", "bad_content"),
        (HEAD + b"content-length: 2\r\n\r\n{}more", "broken"),
        (SSE + b"zz\r\n", "broken"),
        (b"hello, this is not HTTP\r\n\r\n", "broken"),
        (b"", "broken"),
    ],
    ids=["cut off", "no end mark", "no choices", "too long", "no chunk size", "not HTTP", "closed"],
)
def test_a_bad_answer_is_told_from_a_good_one(build: Path, answers: bytes, field: str) -> None:
    result = _count(build, answers, cut=100_000)
    assert (result.ok, getattr(result, field), result.requests) == (0, 1, 1)


def test_it_drives_the_mock_with_many_connections(build: Path, mock_port: int) -> None:
    bodies = build / "many.jsonl"
    bodies.write_text(f'{CHAT},"max_tokens":5}}\n{CHAT},"stream":true,"max_tokens":5}}\n')
    command = [str(build_tool("load", build)), "--connect", f"127.0.0.1:{mock_port}", "--bodies", str(bodies)]
    command += ["--requests", "500", "--connections", "20"]
    result = read_result(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (result.ok, result.chunks, result.opened) == (500, 250 * 5, 20)
    assert result.latency_ms.count == 500


def test_a_long_answer_counts_by_the_share_that_lies_inside(build: Path, mock_port: int) -> None:
    bodies = build / "long.jsonl"
    bodies.write_text(f'{CHAT},"max_tokens":40,"seed":10}}\n')  # 0.4 s
    endpoint = Endpoint(f"127.0.0.1:{mock_port}")
    words = load_command(endpoint, Load(connections=4, seconds=0.3, warmup_s=0.05), bodies)
    command = [str(build_tool("load", build)), *words]
    result = read_result(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result.ok == 0
    assert result.done_requests == pytest.approx(4 * 0.3 / 0.4, rel=0.25)
    assert result.done_tokens == pytest.approx(40 * result.done_requests, rel=0.01)


def test_percentiles_are_within_a_hundredth_of_the_exact_ones(tmp_path: Path) -> None:
    source = tmp_path / "h.c"
    source.write_text(
        '#include "histogram.h"\nstatic struct histogram h;\n'
        "void add(uint64_t v) { histogram_add(&h, v); }\n"
        "uint64_t at(double f) { return histogram_at(&h, f); }\n"
    )
    library = tmp_path / "h.so"
    command = ["gcc", "-shared", "-fPIC", f"-I{tools.SOURCES}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    histogram = ctypes.CDLL(str(library))
    histogram.add.argtypes, histogram.at.argtypes = [ctypes.c_uint64], [ctypes.c_double]
    histogram.at.restype = ctypes.c_uint64
    assert histogram.at(0.5) == 0
    chance = random.Random(1)
    values = sorted(int(chance.lognormvariate(12, 3)) for _ in range(5000))
    for value in values:
        histogram.add(value)
    for fraction in (0.0002, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[max(0, round(fraction * len(values)) - 1)]
        assert histogram.at(fraction) == pytest.approx(exact, rel=0.01)


# -- around them ---------------------------------------------------------------------------------------------


def test_a_tool_is_compiled_once(build: Path) -> None:
    before = build_tool("mock", build).stat().st_mtime_ns
    assert build_tool("mock", build).stat().st_mtime_ns == before


def test_without_a_compiler_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="gcc is not on the PATH"):
        build_tool("mock", tmp_path)


def test_the_load_generator_gets_every_header_and_number() -> None:
    endpoint = Endpoint("127.0.0.1:80", ("A: 1", "B: 2"))
    words = load_command(endpoint, Load(3, 0.5, stagger_ms=20), Path("b.jsonl"))
    assert words[words.index("--header") + 1] == "A: 1"
    assert words.count("--header") == 2
    assert words[words.index("--connections") + 1] == "3"
    assert words[words.index("--seconds") + 1] == "0.5"


def test_a_line_that_is_no_result_is_refused() -> None:
    with pytest.raises(ToolError, match="something unexpected"):
        read_result('{"seconds": 1}')
