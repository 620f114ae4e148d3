"""When does an adapter pass its trial, and what does the trial leave behind?"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engines.questions import GENERATED_TOKENS, PROMPTS
from engines.trial import BaseModelFailed, Trials, judge, judge_generation

BLOCK = 16
BASE = [-1.0, -2.0, -3.0]


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two parameter classes of vLLM that the trial makes; importing vLLM takes seconds."""
    module = ModuleType("vllm")
    module.__dict__.update(SamplingParams=SimpleNamespace, PoolingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)


class FakeEngine:
    """Log-probabilities or vectors out of a function of (adapter or None, number of the call)."""

    def __init__(self, value: Callable[[Any, int], float], *, generated: list[float] | None = None) -> None:
        self.value = value
        self.generated = [-0.5] * GENERATED_TOKENS if generated is None else generated
        self.prompts: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.scrubbed = 0
        self.model_config = SimpleNamespace(max_model_len=512, get_vocab_size=lambda: 1000)
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(block_size=BLOCK))

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(encode=lambda text: [ord(c) for c in text[:5]])

    async def collective_rpc(self, method: str) -> list[int]:
        assert method == "tenantry_scrub"
        self.scrubbed += 1
        return [1]

    async def generate(
        self, prompt: dict[str, Any], params: Any, request_id: str, *, lora_request: Any, priority: int
    ) -> AsyncIterator[Any]:
        self._note(prompt, request_id)
        if params.max_tokens == 1:
            value = self.value(lora_request, len(self.ids))
            tokens = [0]
            logprobs = [{token: SimpleNamespace(logprob=value) for token in params.logprob_token_ids}]
        else:
            tokens = list(range(len(self.generated)))
            logprobs = [{t: SimpleNamespace(logprob=v)} for t, v in zip(tokens, self.generated, strict=True)]
        yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])

    async def encode(
        self, prompt: dict[str, Any], params: Any, request_id: str, *, lora_request: Any, priority: int
    ) -> AsyncIterator[Any]:
        self._note(prompt, request_id)
        value = self.value(lora_request, len(self.ids))
        data = SimpleNamespace(flatten=lambda: SimpleNamespace(tolist=lambda: [value, 2.0]))
        yield SimpleNamespace(outputs=SimpleNamespace(data=data))

    def _note(self, prompt: dict[str, Any], request_id: str) -> None:
        self.prompts.append(prompt)
        self.ids.append(request_id)


async def bounded(work: Any) -> Any:
    return await work


def trial(engine: FakeEngine, *tasks: str) -> Trials:
    return Trials(engine, tasks or ("generate",), bounded)


async def test_an_adapter_that_changes_answers_passes() -> None:
    engine = FakeEngine(lambda adapter, _: -2.5 if adapter else -1.0)
    report = await trial(engine).run("adapter", 0.25)
    assert (report.passed, report.reason, report.difference, report.load_s) == (True, "", 1.5, 0.25)
    assert engine.scrubbed == 0


async def test_no_part_of_a_trial_can_be_found_by_anybody_and_none_fills_half_a_block() -> None:
    engine = FakeEngine(lambda adapter, _: -2.5 if adapter else -1.0)
    await trial(engine).run("adapter", 0.0)
    salts = [prompt["cache_salt"] for prompt in engine.prompts]
    assert len(salts) == 3 * len(PROMPTS) + 1 == len(set(salts)) == len(set(engine.ids))
    assert all(len(salt) <= 128 and not set(salt) & set("@/\\\0") for salt in salts)
    assert {len(prompt["prompt_token_ids"]) for prompt in engine.prompts} == {BLOCK}


async def test_a_small_context_is_not_exceeded() -> None:
    engine = FakeEngine(lambda adapter, _: -2.5 if adapter else -1.0)
    engine.model_config.max_model_len = 10
    await trial(engine).run("adapter", 0.0)
    assert {len(prompt["prompt_token_ids"]) for prompt in engine.prompts} == {10 - GENERATED_TOKENS}


async def test_an_adapter_that_does_nothing_fails() -> None:
    report = await trial(FakeEngine(lambda *_: -1.0)).run("adapter", 0.0)
    assert not report.passed and "answers like the base model" in report.reason
    assert report.saw_nothing


async def test_where_no_difference_is_seen_its_answers_are_looked_at_nevertheless() -> None:
    engine = FakeEngine(lambda *_: -1.0, generated=[-1.0, float("nan")])
    report = await trial(engine).run("adapter", 0.0)
    assert "not finite" in report.reason and not report.saw_nothing
    assert engine.scrubbed == 1


async def test_a_change_no_larger_than_noise_is_none() -> None:
    engine = FakeEngine(lambda adapter, call: -1.0 - 0.01 * (call % 2) - 0.02 * bool(adapter))
    report = await trial(engine).run("adapter", 0.0)
    assert not report.passed and 0.01 < report.difference < 0.04


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_numbers_that_are_none_end_the_trial_at_once_and_are_scrubbed(value: float) -> None:
    engine = FakeEngine(lambda adapter, _: value if adapter else -1.0)
    report = await trial(engine).run("adapter", 0.0)
    assert not report.passed and "not finite" in report.reason and math.isfinite(report.difference)
    assert engine.scrubbed == 1
    assert len(engine.prompts) == 2 * len(PROMPTS) + 1


@pytest.mark.parametrize(
    ("generated", "reason", "scrubbed"), [([], "generates nothing", 0), ([-1.0, math.nan], "not finite", 1)]
)
async def test_a_generation_that_goes_wrong_fails(generated: list[float], reason: str, scrubbed: int) -> None:
    engine = FakeEngine(lambda adapter, _: -2.5 if adapter else -1.0, generated=generated)
    report = await trial(engine).run("adapter", 0.0)
    assert not report.passed and reason in report.reason and engine.scrubbed == scrubbed


async def test_of_a_pooling_model_vectors_are_compared() -> None:
    engine = FakeEngine(lambda adapter, _: 1.0 if adapter else 0.5)
    report = await trial(engine, "embed").run("adapter", 0.0)
    assert report.passed and report.difference == pytest.approx(0.25), "relative to the largest number, 2"
    assert len(engine.prompts) == 3 * len(PROMPTS), "nothing is generated"
    report = await trial(FakeEngine(lambda *_: 0.5), "embed").run("adapter", 0.0)
    assert not report.passed


async def test_what_vllm_raises_comes_out() -> None:
    def fail(adapter: Any, _: int) -> float:
        if adapter:
            raise RuntimeError("no")
        return -1.0

    with pytest.raises(RuntimeError, match="no"):
        await trial(FakeEngine(fail)).run("adapter", 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, RuntimeError("no kernel")])
async def test_an_engine_that_fails_on_its_base_model_is_not_the_adapters_fault(value: Any) -> None:
    def broken(adapter: Any, _: int) -> float:
        if not adapter and isinstance(value, Exception):
            raise value
        return -2.5 if adapter else float(value)

    engine = FakeEngine(broken)
    with pytest.raises(BaseModelFailed):
        await trial(engine).run("adapter", 0.0)


def test_answers_of_another_length_are_not_compared() -> None:
    reason, difference = judge(BASE, BASE, BASE[:2])
    assert "another number of values" in reason and difference == 0.0
    assert judge_generation([-1.0]) == ""
