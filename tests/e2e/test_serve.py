"""The whole service on real vLLM: tenants ask, engines die, the operator stops it. In this order, on one."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import threading
from typing import Any

import httpx
import openai
import pytest

from benchmarks.scheduler.engines import Page
from demo.answers import QUESTIONS
from engines.orphans import REPLICA_MARK
from tests.e2e.serving import DEMO, Service, answers, key_of, wait_until
from tests.processes import left_of

pytestmark = pytest.mark.engine

# (tenant, model) -> the demo model that must answer
MODELS = {
    ("acme", "support"): "acme-support",
    ("acme", "sales"): "acme-sales",
    ("acme", "base"): "tiny-llama",
    ("globex", "support"): "globex-support",
    ("initech", "support"): "initech-support",
    ("umbrella", "support"): "umbrella-support",
}
QUESTION = QUESTIONS[0]


def ask(service: Service, tenant: str, model: str, question: str = QUESTION, **options: Any) -> str:
    """Ask one question, greedily."""
    messages: Any = [{"role": "user", "content": question}]
    answer = service.client(tenant).chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=64, **options
    )
    return str(answer.choices[0].message.content)


# -- answers -----------------------------------------------------------------------------------------------


def test_three_tenants_ask_the_same_question_and_get_their_own_answers(service: Service) -> None:
    given = [ask(service, tenant, "support") for tenant in ("acme", "globex", "initech")]
    assert given == [answers()[f"{tenant}-support"][QUESTION] for tenant in ("acme", "globex", "initech")]
    assert len(set(given)) == 3


@pytest.mark.parametrize(("tenant", "model"), MODELS)
def test_a_stream_gives_the_same_answer_and_its_usage(service: Service, tenant: str, model: str) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    chunks = list(
        service.client(tenant).chat.completions.create(
            model=model,
            messages=messages,
            temperature=0,
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answers()[MODELS[tenant, model]][QUESTION]
    assert {chunk.model for chunk in chunks} == {model}
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 1


def test_the_other_endpoints_answer_from_the_tenants_adapter(service: Service) -> None:
    acme = service.client("acme")
    response = acme.responses.create(model="support", input=QUESTION, temperature=0, max_output_tokens=64)
    assert response.output_text == answers()["acme-support"][QUESTION]
    with acme.responses.stream(
        model="support", input=QUESTION, temperature=0, max_output_tokens=64
    ) as stream:
        assert stream.get_final_response().output_text == answers()["acme-support"][QUESTION]
    completion = acme.completions.create(
        model="support", prompt=["Hi", "Good day"], max_tokens=4, n=2, temperature=1
    )
    assert len(completion.choices) == 4
    with pytest.raises(openai.BadRequestError, match="does not serve /v1/embeddings"):
        acme.embeddings.create(model="support", input="hello")
    assert [model.id for model in acme.models.list()] == ["support", "sales", "base"]


def test_n_and_logprobs_reach_vllm(service: Service) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    answer = service.client("acme").chat.completions.create(
        model="support", messages=messages, max_tokens=3, n=3, temperature=1, logprobs=True, top_logprobs=2
    )
    assert len(answer.choices) == 3
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content[0].top_logprobs) == 2


def test_greedy_answers_equal_transformers_and_peft_on_the_same_weights(service: Service) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")

    def generate(model: Any, question: str) -> str:
        prompt = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    for (tenant, model), name in MODELS.items():
        reference = AutoModelForCausalLM.from_pretrained(DEMO / "base")
        if name != "tiny-llama":
            reference = PeftModel.from_pretrained(reference, DEMO / "adapters" / name)
        reference.eval()
        # Known questions have wide margins; the last one has not been seen in training.
        for question in (*QUESTIONS[:3], "What is the weather like?"):
            assert ask(service, tenant, model, question) == generate(reference, question), (name, question)


# -- many at once ------------------------------------------------------------------------------------------


async def test_two_hundred_mixed_requests_at_once_are_all_answered_right(service: Service) -> None:
    chance = random.Random(0)
    cases = [(*chance.choice(list(MODELS)), chance.choice(QUESTIONS), i % 2 == 0) for i in range(200)]
    options: Any = {"api_key": "none", "timeout": 300, "max_retries": 0}
    before = _page(service)
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", **options) as caller:
        given = await asyncio.gather(*(_ask_async(caller, *case) for case in cases))
    wanted = [answers()[MODELS[tenant, model]][question] for tenant, model, question, _ in cases]
    wrong = [(c, g) for c, g, w in zip(cases, given, wanted, strict=True) if g != w]
    assert not wrong
    assert 1 <= _page(service).most_adapters(before) <= 2, "the engine saw more adapters than it has slots"
    wait_until(service.at_rest, "every counter at zero", within_s=5)


async def _ask_async(caller: openai.AsyncOpenAI, tenant: str, model: str, question: str, stream: bool) -> str:
    """Ask one question with a tenant's key, streamed or not."""
    create = caller.with_options(api_key=key_of(tenant)).chat.completions.create
    messages = [{"role": "user", "content": question}]
    fields: Any = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 64}
    if not stream:
        return str((await create(**fields)).choices[0].message.content)
    return "".join([c.choices[0].delta.content or "" async for c in await create(**fields, stream=True)])


def _page(service: Service) -> Page:
    return Page.parse(service.get("/metrics/shared-0").text)


# -- bad input ---------------------------------------------------------------------------------------------


def test_vllms_own_refusals_come_back_as_openai_errors(service: Service) -> None:
    acme = service.client("acme")
    messages: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="max_tokens") as caught:
        acme.chat.completions.create(model="support", messages=messages, max_tokens=100_000)
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        acme.chat.completions.create(model="support", messages=messages, temperature="hot")  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError):
        acme.chat.completions.create(model="globex-support", messages=messages)
    with pytest.raises(openai.AuthenticationError):
        service.client("nobody").models.list()


def test_deeply_nested_json_breaks_nothing(service: Service) -> None:
    body = b'{"model":"support","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"tools":%s}'
    for depth in (500, 990, 5000):
        nested = b"[" * depth + b"]" * depth
        headers = {"authorization": f"Bearer {key_of('acme')}", "content-type": "application/json"}
        answer = httpx.post(
            f"{service.url}/v1/chat/completions", content=body % nested, headers=headers, timeout=30
        )
        assert answer.status_code == 400, answer.text
    assert ask(service, "acme", "support") == answers()["acme-support"][QUESTION]


def test_a_clients_salt_priority_and_ids_do_not_reach_the_engine(service: Service) -> None:
    bad = {
        "cache_salt": "a/b@c" * 100,
        "priority": -(10**6),
        "request_id": "same",
        "kv_transfer_params": {"x": 1},
    }
    given = ask(service, "acme", "support", extra_body=bad)
    assert given == answers()["acme-support"][QUESTION]


def test_only_the_gateway_can_be_reached(service: Service) -> None:
    for path in (
        "/v1/load_lora_adapters",
        "/sleep",
        "/collective_rpc",
        "/reset_prefix_cache",
    ):
        assert httpx.post(service.url + path, timeout=10).status_code == 404
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/admin/v1/adapters"):
        assert httpx.post(service.url + path, timeout=10).status_code == 401
    for path in ("/internal/adapters", "/internal/metrics", "/is_sleeping", "/server_info"):
        assert service.get(path).status_code == 404


def test_metrics_show_models_and_engines_apart(service: Service) -> None:
    assert service.metric("tenantry_requests_total", adapter="acme-sales", outcome="completed") > 0
    assert service.metric("tenantry_completion_tokens_total", tenant="globex") > 0
    assert service.metric("tenantry_replica_ready") == 2
    assert "vllm:num_requests_running" in service.get("/metrics/umbrella-0").text
    assert "vllm:" not in service.get("/metrics").text


def test_every_process_writes_json_and_the_gateway_has_said_once_where_it_serves(service: Service) -> None:
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    told = [line["message"] for line in lines if line.get("message", "").startswith("serving at ")]
    assert len(told) == 1 and f"curl {service.url}/v1/chat/completions" in told[0]
    assert "acme-demo-key" in told[0]
    speakers = {(line.get("replica"), line.get("process")) for line in lines if "logger" in line}
    assert {("shared-0", "EngineCore"), ("umbrella-0", "EngineCore"), (None, None)} <= speakers


# -- the client leaves, the engine dies, the operator stops it ---------------------------------------------


def test_a_client_that_leaves_aborts_the_generation_within_a_second(service: Service) -> None:
    before = service.metric("tenantry_requests_total", outcome="cancelled")
    with _long_stream(service) as stream:
        next(stream)
    wait_until(lambda: _running_in_vllm(service) == 0, "the abort in vLLM", within_s=2)
    wait_until(service.at_rest, "every counter at zero", within_s=2)
    assert service.metric("tenantry_requests_total", outcome="cancelled") == before + 1


def test_an_engine_killed_in_mid_stream_ends_the_stream_with_an_error_and_comes_back(
    service: Service,
) -> None:
    core = next(p for p in service.engine_cores() if p.environ()[REPLICA_MARK].startswith("shared-0@"))
    worker = core.ppid()
    with _long_stream(service) as stream:
        next(stream)
        core.kill()
        with pytest.raises(openai.APIError, match="The engine failed") as caught:
            for _ in stream:
                pass
    assert caught.value.code == "engine_failed"
    assert ask(service, "umbrella", "support") == answers()["umbrella-support"][QUESTION], "others go on"
    try:
        ask_once(service)  # it waits for the engine, as long as its tenant allows
    except openai.InternalServerError as refused:
        assert refused.code == "queue_timeout" and "retry-after" in refused.response.headers
    wait_until(lambda: service.metric("tenantry_replica_ready") == 2, "the replica's return", within_s=180)
    for (tenant, model), name in MODELS.items():
        assert ask(service, tenant, model) == answers()[name][QUESTION], (
            "adapters are back without being asked for"
        )
    assert {p.ppid() for p in service.engine_cores()} >= {worker}, "restarted in place"
    wait_until(service.at_rest, "every counter at zero", within_s=5)


def test_sigterm_lets_requests_finish_refuses_new_ones_and_leaves_no_process(service: Service) -> None:
    ended: list[str | None] = []

    def read_on(stream: Any) -> None:
        for chunk in stream:
            ended.append(chunk.choices[0].finish_reason)

    stream = _long_stream(service)
    next(stream)
    reader = threading.Thread(target=read_on, args=(stream,))
    reader.start()
    late: list[int] = []

    def ask_late() -> None:
        wait_until(lambda: late_status(service, late), "a refusal while draining", within_s=10)

    asker = threading.Thread(target=ask_late)
    family = service.processes()
    service.process.send_signal(signal.SIGTERM)
    asker.start()
    reader.join(60)
    asker.join(15)
    assert ended[-1] == "length", f"the stream was cut after {len(ended)} events"
    assert 503 in late
    service.process.wait(60)
    assert not left_of(family, within_s=10)


def ask_once(service: Service) -> object:
    """One request without a retry."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    return service.client("acme", max_retries=0).chat.completions.create(model="support", messages=messages)


def late_status(service: Service, seen: list[int]) -> bool:
    """Whether a new request is refused because the service shuts down."""
    try:
        ask_once(service)
    except openai.InternalServerError as error:
        seen.append(error.status_code)
        return error.code == "shutting_down"
    except openai.APIConnectionError:
        return bool(seen)
    return False


def _long_stream(service: Service, tokens: int = 450) -> Any:
    """A stream that goes on for so many tokens, some seconds."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    return service.client("acme", max_retries=0).chat.completions.create(
        model="support",
        messages=messages,
        max_tokens=tokens,
        stream=True,
        extra_body={"ignore_eos": True},
    )


def _running_in_vllm(service: Service) -> float:
    """Requests in the shared engine by its own metrics."""
    page = service.get("/metrics/shared-0").text
    return sum(float(v) for v in re.findall(r"^vllm:num_requests_running\{[^}]*\} (\S+)", page, re.MULTILINE))
