"""The suites: what is run of each client, and how its outcome is read."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients import environments
from tests.clients.sides import MODEL, Side

PYTHON = Path(__file__).parent / "python"
LIMIT_S = 1500
# vLLM's tests of its server with a text model on one engine; the others want a larger model, several
# servers, a GPU, or flags of their own, or never talk to a server.
VLLM_TESTS = (
    "anthropic/test_messages.py",
    "openai/chat_completion/test_batched_chat_completions.py",
    "openai/chat_completion/test_chat.py",
    "openai/chat_completion/test_chat_completion.py",
    "openai/chat_completion/test_chat_echo.py",
    "openai/chat_completion/test_chat_logit_bias_validation.py",
    "openai/chat_completion/test_completion_with_function_calling.py",
    "openai/chat_completion/test_enable_force_include_usage.py",
    "openai/chat_completion/test_include_reasoning.py",
    "openai/chat_completion/test_logprob_token_ids.py",
    "openai/chat_completion/test_non_object_body_validation.py",
    "openai/chat_completion/test_thinking_token_budget.py",
    "openai/completion/test_completion.py",
    "openai/completion/test_prompt_validation.py",
    "openai/models/test_models.py",
    "openai/responses/test_basic.py",
    "openai/responses/test_errors.py",
    "openai/responses/test_function_call.py",
    "openai/responses/test_namespace_tool_separator.py",
    "openai/responses/test_simple.py",
    "openai/responses/test_stateful.py",
    "openai/responses/test_structured_output.py",
    "openai/test_chunked_prompt.py",
    "openai/test_return_token_ids.py",
    "openai/test_return_tokens_as_ids.py",
    "openai/test_stop_token_ids.py",
    "openai/test_tool_choice_content_none.py",
    "serve/instrumentator/test_basic.py",
    "serve/tokenize/test_tokenization.py",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one check went."""

    passed: bool
    error: str = ""


Outcomes = dict[str, Outcome]
Suite = Callable[[Side, Path], Outcomes]


def _script(environment: str, name: str) -> Suite:
    """Run a script in Python; its lines of JSON tell of its checks."""

    def run(side: Side, folder: Path) -> Outcomes:
        command = [environments.python_of(environment), str(PYTHON / f"{name}.py")]
        return _told(_output(command, side, folder, name))

    return run


def _node(name: str) -> Suite:
    def run(side: Side, folder: Path) -> Outcomes:
        script = environments.node_folder() / f"{name}.mjs"
        return _told(_output(["node", str(script)], side, folder, name))

    return run


def _told(text: str) -> Outcomes:
    told = [json.loads(line) for line in text.splitlines() if line.startswith('{"check"')]
    return {each["check"]: Outcome(each["ok"], each["error"]) for each in told}


def _langchain(side: Side, folder: Path) -> Outcomes:
    command = [environments.python_of("sdks"), "-m", "pytest", str(PYTHON / "langchain_standard.py")]
    return _pytest([*command, "--rootdir", str(PYTHON)], side, folder, "langchain")


def _vllm_tests(side: Side, folder: Path) -> Outcomes:
    """Run vLLM's own tests in the product's environment, which has vLLM."""
    source = environments.vllm_tests()
    tests = source / "tests" / "entrypoints"
    command = [environments.python_of("product"), "-m", "pytest", "-p", "vllm_servers"]
    options = [
        "--rootdir",
        str(source),
        "--confcutdir",
        str(tests),
        "-c",
        "/dev/null",
        "-o",
        "asyncio_mode=auto",
    ]
    limits = ["-o", "asyncio_default_fixture_loop_scope=function", "-o", "filterwarnings=ignore"]
    paths = [str(tests / name) for name in VLLM_TESTS if (tests / name).exists()]
    path = f"{PYTHON}:{source}"
    return _pytest([*command, *options, *limits, *paths], side, folder, "vllm-tests", PYTHONPATH=path)


def _pytest(command: list[str], side: Side, folder: Path, name: str, **more: str) -> Outcomes:
    report = folder / f"{name}.xml"
    report.unlink(missing_ok=True)
    own = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "-p",
        "no:xdist",
        "--tb=native",
        f"--junitxml={report}",
    ]
    _output([*command, *own], side, folder, name, **more)
    outcomes: Outcomes = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        fault = next((each for tag in ("failure", "error") if (each := case.find(tag)) is not None), None)
        where = case.get("classname", "").rpartition("entrypoints.")[2]
        message = "" if fault is None else fault.get("message", "")
        outcomes[f"{where}::{case.get('name')}"] = Outcome(fault is None, message)
    return outcomes


def _load(
    name: str, command: Callable[[Side, Path], list[str]], succeeded: Callable[[str, Path], bool], **more: str
) -> Suite:
    """Run a load tool once, with more environment; it passes where it ends well and no request fails."""

    def run(side: Side, folder: Path) -> Outcomes:
        text = _output(command(side, folder), side, folder, name, **more)
        passed = succeeded(text, folder)
        return {"load": Outcome(passed, "" if passed else " ".join(text.split())[-600:])}

    return run


def _output(command: list[str], side: Side, folder: Path, name: str, **more: str) -> str:
    """Run a command within the time limit; returns what it printed, and keeps it in a file."""
    path = folder / f"{name}.log"
    environment = side.environment() | more
    with path.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd="/", start_new_session=True
        )
        try:
            status = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    return path.read_text(errors="replace") + f"\nstatus {status}\n"


def _guidellm(side: Side, folder: Path) -> list[str]:
    guidellm = Path(environments.python_of("guidellm")).with_name("guidellm")
    key = side.environment()["CLIENT_KEY"]
    backend = f"kind=openai_http,target={side.url},model={MODEL},api_key={key}"
    return [
        *(str(guidellm), "run", "--backend", backend, "--profile", "kind=concurrent,streams=2"),
        *("--constraint", "kind=max_requests,count=20", "--tokenizer", f"kind=hf_auto,model={MODEL}"),
        *("--data", "kind=synthetic_text,prompt_tokens=16,output_tokens=8"),
        *("--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console-interactive"),
    ]


def _guidellm_ended_well(text: str, folder: Path) -> bool:
    path = folder / "guidellm.json"
    if "status 0" not in text or not path.exists():
        return False
    totals = [b["metrics"]["request_totals"] for b in json.loads(path.read_text())["benchmarks"]]
    return all(each["successful"] and not each["errored"] for each in totals)


def _aiperf(side: Side, folder: Path) -> list[str]:
    aiperf = Path(environments.python_of("aiperf")).with_name("aiperf")
    return [
        *(
            str(aiperf),
            "profile",
            "--model",
            MODEL,
            "--url",
            side.url,
            "--tokenizer",
            f"/{MODEL}",
            "--streaming",
        ),
        *("--endpoint-type", "chat", "--api-key", side.environment()["CLIENT_KEY"], "--concurrency", "2"),
        *("--request-count", "20", "--synthetic-input-tokens-mean", "16", "--output-tokens-mean", "8"),
        *("--ui", "none", "--output-artifact-dir", str(folder / "artifacts")),
    ]


def _aiperf_ended_well(text: str, folder: Path) -> bool:
    files = sorted(folder.glob("artifacts/**/profile_export_aiperf.json"))
    if "status 0" not in text or not files:
        return False
    figures = json.loads(files[-1].read_text())
    return figures["request_count"]["avg"] == 20 and not figures.get("error_summary")


def _vllm_bench(side: Side, _: Path) -> list[str]:
    return [
        *(environments.python_of("product"), str(PYTHON / "vllm_bench.py"), "--base-url", side.url),
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--model", MODEL),
        *("--dataset-name", "random", "--random-input-len", "16", "--random-output-len", "8"),
        *("--num-prompts", "20", "--max-concurrency", "4", "--disable-tqdm"),
    ]


def _locust(side: Side, _: Path) -> list[str]:
    locust = Path(environments.python_of("locust")).with_name("locust")
    script = str(PYTHON / "locust_load.py")
    return [str(locust), "-f", script, "--headless", "-u", "4", "-r", "4", "-t", "10s", "--host", side.url]


SUITES: dict[str, Suite] = {
    "openai-python": _script("sdks", "openai_sdk"),
    "openai-node": _node("openai"),
    "anthropic-python": _script("sdks", "anthropic_sdk"),
    "anthropic-node": _node("anthropic"),
    "frameworks": _script("sdks", "frameworks"),
    "langchain-standard": _langchain,
    "litellm": _script("litellm", "litellm_client"),
    "vercel-ai-sdk": _node("ai_sdk"),
    "guidellm": _load("guidellm", _guidellm, _guidellm_ended_well),
    # Offline it looks for a tokenizer in the hub's cache only, and takes no folder.
    "aiperf": _load("aiperf", _aiperf, _aiperf_ended_well, HF_HUB_OFFLINE=""),
    "vllm-bench-serve": _load(
        "vllm-bench",
        _vllm_bench,
        lambda text, _: "status 0" in text and "Failed requests:                         0" in text,
    ),
    "locust": _load("locust", _locust, lambda text, _: "status 0" in text),
    "vllm-tests": _vllm_tests,
}
