"""Engines' pages are read for what the comparison needs of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from benchmarks.scheduler.doors import session_to
from benchmarks.scheduler.engines import EngineEyes, Page
from benchmarks.tools import ToolError
from engines.protocol import ADAPTERS_PATH, METRICS_PATH
from engines.residency import Residency
from tests.unit.benchmarks.scheduler.fakes import FakeServer

PAGE = """\
# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="tiny-llama"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny-llama"} 2.0
tenantry_adapters_in_flight_bucket{le="0.0"} 10.0
tenantry_adapters_in_flight_bucket{le="1.0"} 14.0
tenantry_adapters_in_flight_bucket{le="2.0"} 14.0
tenantry_adapters_in_flight_bucket{le="12.0"} 15.0
tenantry_adapters_in_flight_bucket{le="+Inf"} 15.0
tenantry_adapters_in_flight_count 15.0
tenantry_adapter_load_seconds_count{tier="disk"} 7.0
tenantry_adapter_load_seconds_count{tier="host"} 11.0
tenantry_adapter_load_seconds_created{tier="host"} 1.7e+09
"""
IDLE = b"vllm:num_requests_running 0.0\n"


def test_a_page_says_what_is_running_and_what_was_loaded() -> None:
    page = Page.parse(PAGE)
    assert (page.requests, page.disk_loads) == (5.0, 7.0)


def test_the_most_adapters_in_vllm_are_those_of_the_steps_since_an_earlier_look() -> None:
    before, idle = Page.parse(PAGE), Page.parse("")
    assert before.most_adapters(idle) == 12
    after = Page.parse(PAGE.replace(" 14.0", " 17.0").replace(" 15.0", " 18.0"))
    assert after.most_adapters(before) == 1
    assert after.most_adapters(after) == 0
    many = Page.parse(PAGE.replace('{le="+Inf"} 15.0', '{le="+Inf"} 16.0'))
    assert many.most_adapters(before) == float("inf")


def test_an_empty_page_is_an_idle_engine() -> None:
    assert Page.parse("") == Page(0.0, 0.0, {})


async def eyes(stack: AsyncExitStack, tmp_path: Path, engine: FakeServer, gateway: FakeServer) -> EngineEyes:
    sessions = []
    for name, server in (("e", engine), ("g", gateway)):
        socket = tmp_path / f"{name}.sock"
        await stack.enter_async_context(server.listening(socket))
        sessions.append(await stack.enter_async_context(session_to(f"unix:{socket}", "t")))
    return EngineEyes({"e": sessions[0]}, sessions[1])


async def test_engines_are_idle_when_neither_they_nor_the_gateway_have_requests(tmp_path: Path) -> None:
    engine, gateway = FakeServer(), FakeServer()
    engine.pages[METRICS_PATH] = IDLE
    gateway.pages["/metrics"] = b'tenantry_in_flight{tenant="a"} 0.0\ntenantry_requests_total 9.0\n'
    async with AsyncExitStack() as stack:
        await (await eyes(stack, tmp_path, engine, gateway)).wait_until_idle(0.0)


@pytest.mark.parametrize(
    ("engine_page", "gateway_page", "words"),
    [
        (PAGE.encode(), b"", "5 requests in engines"),
        (IDLE, b'tenantry_queue_depth{tenant="a"} 4.0\n', "4 in the gateway"),
    ],
)
async def test_engines_that_do_not_come_to_rest_are_complained_about(
    tmp_path: Path, engine_page: bytes, gateway_page: bytes, words: str
) -> None:
    engine, gateway = FakeServer(), FakeServer()
    engine.pages[METRICS_PATH], gateway.pages["/metrics"] = engine_page, gateway_page
    async with AsyncExitStack() as stack:
        looking = await eyes(stack, tmp_path, engine, gateway)
        with pytest.raises(ToolError, match=words):
            await looking.wait_until_idle(0.0)


async def test_an_engine_says_what_it_holds(tmp_path: Path) -> None:
    engine = FakeServer()
    engine.pages[ADAPTERS_PATH] = orjson.dumps(Residency("w", 1, 2, host=("a@1",)).to_json())
    async with AsyncExitStack() as stack:
        looking = await eyes(stack, tmp_path, engine, FakeServer())
        assert (await looking.residency("e")).host == ("a@1",)


async def test_an_engine_that_does_not_answer_is_complained_about(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        looking = await eyes(stack, tmp_path, FakeServer(), FakeServer())
        with pytest.raises(ToolError, match="404"):
            await looking.pages()
    async with session_to(f"unix:{tmp_path}/none.sock", "t") as session:
        with pytest.raises(ToolError, match="not answered"):
            await EngineEyes({"e": session}, session).pages()
