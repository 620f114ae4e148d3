"""What does the gateway take a replica's answers for, and how does it name one of several at a host?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from engines.health import EngineHealth, EngineState, Place
from engines.protocol import MODEL_HEADER, EngineOrder
from engines.residency import DesiredAdapters, Residency
from fleet.types import BaseModel
from fleet.values import engine_values
from routing.replicas.client import OrderRefused, ReplicaClient, ReplicaDied, ReplicaSilent
from tests.fakes import respond, serving

TOLD = EngineHealth(EngineState.FAILED, "No working C++ compiler", "w", 1, "KeyError", True)
PLACE = Place(
    awake=2,
    memory_bytes=2**30,
    way="cold",
    took_s={"cold": 21.5},
    asleep=1,
    asleep_bytes=5,
    resting={"put": "x"},
)
ASLEEP = EngineHealth(EngineState.STOPPED, place=PLACE)


@pytest.mark.parametrize(
    ("status", "payload", "health"),
    [
        (503, TOLD.to_json(), TOLD),
        (503, ASLEEP.to_json(), ASLEEP),
        (503, ASLEEP.to_json() | {"place": {"awake": 1}}, None),
        (503, ASLEEP.to_json() | {"place": 7}, None),
        (200, {"ready": True}, EngineHealth(EngineState.READY)),  # an engine of an older release
        (503, {"ready": False}, EngineHealth(EngineState.STARTING)),
        (200, ["ready"], None),
        (200, None, None),
        (200, {"state": "dancing"}, None),
        (200, {"state": "ready", "deaths": "many"}, None),
    ],
)
async def test_a_replica_is_what_it_says_or_nothing(
    tmp_path: Path, status: int, payload: Any, health: EngineHealth | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, status, payload)

    async with serving(app, tmp_path / "engine.sock") as url:
        client = ReplicaClient("shared-0", url, "token")
        assert await client.health() == health
        assert await client.is_ready() == (health is not None and health.state is EngineState.READY)
        client.close()


HELD = Residency("w", 1, 1, settings="d", max_loras=2, max_num_seqs=8, max_cpu_loras=4).to_json()
Ask = Callable[[ReplicaClient], Awaitable[object]]
ODD_RESIDENCY: list[Any] = [
    None,
    [],
    "x",
    {},
    HELD | {"faults": []},
    HELD | {"faults": {"a@1": "gone"}},
    HELD | {"faults": {"a@1": {"kind": "load", "count": 1, "reason": "x", "engine": []}}},
    HELD | {"slots": 2},
    HELD | {"revision": "new"},
    HELD | {"kv_tokens": None},
    HELD | {"max_num_seqs": 0},
    HELD | {"max_num_seqs": -1},
    HELD | {"max_loras": -1},
]
ODD_HEALTH: list[Any] = [[], {}, {"state": "dancing"}]
ODD_TRIAL: list[Any] = [[], {"passed": True}, {"difference": []}]
ODD: list[tuple[Ask, Any]] = [
    *((lambda client: client.residency(), odd) for odd in ODD_RESIDENCY),
    *((lambda client: client.desire(DesiredAdapters(1, ())), odd) for odd in ODD_RESIDENCY),
    *((lambda client: client.order(EngineOrder.START), odd) for odd in ODD_HEALTH),
    *((lambda client: client.try_adapter("a@1"), odd) for odd in ODD_TRIAL),
]


@pytest.mark.parametrize(("ask", "odd"), ODD)
async def test_an_answer_of_another_form_is_no_answer_and_nothing_else(
    tmp_path: Path, ask: Callable[[ReplicaClient], Awaitable[object]], odd: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, odd)

    async with serving(app, tmp_path / "engine.sock") as url:
        client = ReplicaClient("shared-0", url, "token")
        with pytest.raises(ReplicaSilent):
            await ask(client)
        assert not client.in_use
        client.close()


async def test_a_replica_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    client = ReplicaClient("shared-0", f"unix://{tmp_path}/nobody.sock", "token")
    assert await client.health() is None and not await client.is_ready()
    client.close()


async def test_a_replica_that_shares_its_host_is_named_by_its_base_model(tmp_path: Path) -> None:
    named: list[bytes | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        named.append(dict(scope["headers"]).get(MODEL_HEADER.encode()))
        await respond(send, 200, ASLEEP.to_json())

    async with serving(app, tmp_path / "host.sock") as url:
        for model in ("odd", None):
            client = ReplicaClient("mesh-0.odd", url, "token", base_model=model)
            assert await client.health() == ASLEEP
            await client.order(EngineOrder.START)
            client.close()
    assert named == [b"odd", b"odd", None, None]


async def test_a_start_may_name_the_model_that_goes(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(orjson.loads((await receive())["body"]))
        await respond(send, 200, ASLEEP.to_json())

    async with serving(app, tmp_path / "host.sock") as url:
        client = ReplicaClient("mesh-0.odd", url, "token", base_model="odd")
        await client.order(EngineOrder.START, instead_of="even")
        await client.order(EngineOrder.START)
        model = BaseModel("odd", "/store/odd")
        await client.order(EngineOrder.PREPARE, model, files_at="http://gateway:3000")
        client.close()
    assert told[:2] == [{"order": "start", "instead_of": "even"}, {"order": "start"}]
    files = {"source": "/store/odd", "revision": None, "files_at": "http://gateway:3000"}
    assert told[2] == {"order": "prepare", "settings": engine_values(model), **files}


@pytest.mark.parametrize(
    ("status", "payload", "error", "words"),
    [
        (409, {"error": "even is awake, and one may be"}, OrderRefused, "^even is awake, and one may be$"),
        (409, {"reason": "none"}, ReplicaDied, "no reason"),
        (409, None, ReplicaDied, "/internal/engine"),
        (400, {"error": "not an order"}, ReplicaDied, "400"),
    ],
)
async def test_a_host_may_refuse_and_say_why(
    tmp_path: Path, status: int, payload: Any, error: type[Exception], words: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, status, payload)

    async with serving(app, tmp_path / "host.sock") as url:
        client = ReplicaClient("mesh-0.odd", url, "token", base_model="odd")
        with pytest.raises(error, match=words):
            await client.order(EngineOrder.START)
        assert not client.in_use
        client.close()
