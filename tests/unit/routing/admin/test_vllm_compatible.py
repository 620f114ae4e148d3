"""vLLM's two routes: its answers for its bodies, and what they do here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adapters.states import VersionState
from routing.admin import vllm_compatible
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import QUARANTINED, READY, Desk, error_of

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
BODY = {"lora_name": "support", "lora_path": "hf://acme/x"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_compatible, "_POLL_S", 0.0)


async def test_loading_waits_until_the_adapter_answers(desk: Desk) -> None:
    desk.management.steps.extend([(VersionState.FETCHING, ""), (READY, "")])
    answer = await desk.ask("POST", LOAD, BODY)
    assert answer.status_code == 200
    assert answer.text == "Success: LoRA adapter 'support' added successfully."
    assert answer.headers["content-type"].startswith("text/plain")
    assert not desk.management.steps


async def test_an_adapter_that_is_refused_is_a_400_with_the_reason(desk: Desk) -> None:
    desk.management.steps.append((QUARANTINED, "/srv/x/adapter_config.json: r is 0"))
    answer = await desk.ask("POST", LOAD, BODY)
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["code"] == "adapter_refused"
    assert error["message"].endswith("was refused: adapter_config.json: r is 0")


async def test_the_wait_is_bounded_and_says_where_to_look(tmp_path: Path) -> None:
    desk = fakes.desk(tmp_path, load_timeout_s=0.02)
    answer = await desk.ask("POST", LOAD, BODY)
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "load_timeout"
    assert (await desk.ask("GET", "/admin/v1/adapters/support")).status_code == 200


async def test_a_loaded_name_is_refused_unless_in_place_makes_a_new_version(desk: Desk) -> None:
    desk.management.put("support")
    answer = await desk.ask("POST", LOAD, BODY)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "adapter_exists"
    assert desk.management.calls == []
    desk.management.steps.append((READY, ""))
    assert (await desk.ask("POST", LOAD, {**BODY, "load_inplace": True})).status_code == 200
    key = desk.management.calls[0][1]
    assert [v.number for v in desk.management.entries[key].versions] == [1, 2]


async def test_of_two_who_load_a_name_at_once_one_makes_a_version(desk: Desk) -> None:
    desk.management.held.clear()
    desk.management.steps.append((READY, ""))
    first = asyncio.create_task(desk.ask("POST", LOAD, BODY))
    await desk.management.asked.wait()
    second = await desk.ask("POST", LOAD, BODY)
    assert (second.status_code, error_of(second)["code"]) == (400, "adapter_exists")
    desk.management.held.set()
    assert (await first).status_code == 200
    assert len(desk.management.calls) == 1


async def test_a_name_whose_only_version_was_refused_can_be_loaded(desk: Desk) -> None:
    desk.management.put("support", "acme", QUARANTINED, live=None)
    desk.management.steps.extend([(QUARANTINED, ""), (READY, "")])
    assert (await desk.ask("POST", LOAD, BODY)).status_code == 200


async def test_an_operator_names_the_tenant(desk: Desk) -> None:
    assert (await desk.ask("POST", LOAD, BODY, key="operator-key")).status_code == 400
    desk.management.steps.append((READY, ""))
    answer = await desk.ask("POST", f"{LOAD}?tenant=acme", BODY, key="operator-key")
    assert answer.status_code == 200
    assert desk.management.calls[0][3].trusted


async def test_fields_that_vllm_ignores_are_ignored(desk: Desk) -> None:
    desk.management.steps.append((READY, ""))
    body = {**BODY, "is_3d_lora_weight": False, "lora_int_id": 7}
    assert (await desk.ask("POST", LOAD, body)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"lora_name": None}, "lora_name"),
        ({"lora_name": "org/name"}, "lora_name"),
        ({"lora_path": ""}, "lora_path"),
        ({"lora_path": 7}, "lora_path"),
        ({"load_inplace": "yes"}, "load_inplace"),
        ({"is_3d_lora_weight": True}, "is_3d_lora_weight"),
    ],
)
async def test_a_bad_field_is_refused_by_name(desk: Desk, changes: dict[str, Any], param: str) -> None:
    answer = await desk.ask("POST", LOAD, {**BODY, **changes})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


async def test_unloading_retires(desk: Desk) -> None:
    key = desk.management.put("support")
    answer = await desk.ask("POST", UNLOAD, {"lora_name": "support", "lora_int_id": None})
    assert answer.status_code == 200
    assert answer.text == "Success: LoRA adapter 'support' removed successfully."
    assert desk.management.calls == [("retire", key, None)]
    again = await desk.ask("POST", UNLOAD, {"lora_name": "support"})
    assert again.status_code == 404


async def test_another_tenant_s_adapter_cannot_be_unloaded(desk: Desk) -> None:
    absent = await desk.ask("POST", UNLOAD, {"lora_name": "support"}, key="globex-key")
    desk.management.put("support", "acme")
    desk.management.put("support", None)
    theirs = await desk.ask("POST", UNLOAD, {"lora_name": "support"}, key="globex-key")
    assert theirs.status_code == absent.status_code == 404
    assert theirs.content == absent.content
    assert desk.management.calls == []


async def test_a_database_that_is_gone_is_a_503(desk: Desk) -> None:
    desk.management.put("support")
    desk.management.gone = True
    assert (await desk.ask("POST", UNLOAD, {"lora_name": "support"})).status_code == 503
    assert (await desk.ask("POST", LOAD, {**BODY, "load_inplace": True})).status_code == 503
