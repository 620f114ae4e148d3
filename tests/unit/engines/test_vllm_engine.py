"""What is corrected in vLLM's own application."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engines.protocol import PRIORITY_HEADER
from engines.vllm_engine import keep_priority


@pytest.mark.parametrize(("headers", "priority"), [({PRIORITY_HEADER: "2"}, 2), ({}, 0), (None, 0)])
async def test_messages_run_with_the_priority_that_the_gateway_says(
    headers: dict[str, str] | None, priority: int
) -> None:
    async def answer(request: Any, raw_request: Any) -> Any:
        return request.priority

    serving = SimpleNamespace(create_chat_completion=answer)
    keep_priority(serving)
    raw = None if headers is None else SimpleNamespace(headers=headers)
    assert await serving.create_chat_completion(SimpleNamespace(priority=0), raw) == priority


def test_a_model_that_answers_no_messages_is_left_alone() -> None:
    keep_priority(None)
