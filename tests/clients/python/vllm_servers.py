"""Lets vLLM's own tests of its server use one that runs already; a plugin of pytest.

Their `tests.utils` starts a server for each module; this stands in its place. Requests that name no key get
the tenant's.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import anthropic
import httpx
import huggingface_hub
import openai
import requests

URL, KEY = os.environ["CLIENT_URL"], os.environ["CLIENT_KEY"]
HEADERS = {"authorization": f"Bearer {KEY}"}


class RemoteOpenAIServer:
    """The server that runs, whatever a test wants to have started."""

    DUMMY_API_KEY = KEY

    def __init__(self, *_: Any, **__: Any) -> None:
        self.url_root = URL
        self.host, _, port = URL.removeprefix("http://").partition(":")
        self.port = int(port)

    def __enter__(self) -> RemoteOpenAIServer:
        return self

    def __exit__(self, *_: object) -> None:
        """It runs on."""

    def url_for(self, *parts: str) -> str:
        return "/".join((URL, *(part.strip("/") for part in parts)))

    def get_client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            **{"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": 60} | options
        )

    def get_async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            **{"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": 60} | options
        )

    def get_client_anthropic(self, **options: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0} | options)

    def get_async_client_anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0} | options)


_prepare = requests.Session.prepare_request


def _prepare_with_key(session: requests.Session, request: requests.Request) -> requests.PreparedRequest:
    request.headers = HEADERS | dict(request.headers or {})
    return _prepare(session, request)


def _same(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if callable(function) else _same


def _other(name: str) -> Any:
    """Stand for what else is imported: decorators, such as those that want a GPU."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _same


utils = ModuleType("tests.utils")
utils.RemoteOpenAIServer = RemoteOpenAIServer
utils.VLLM_PATH = None
utils.ROCM_EXTRA_ARGS = []
utils.__getattr__ = _other
sys.modules["tests.utils"] = utils
requests.Session.prepare_request = _prepare_with_key
_send = httpx.AsyncClient.send


async def _send_with_key(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    if "authorization" not in request.headers and "x-api-key" not in request.headers:
        request.headers.update(HEADERS)
    return await _send(client, request, **options)


httpx.AsyncClient.send = _send_with_key
# Adapters of a hub: the server has one of its own under their names.
huggingface_hub.snapshot_download = huggingface_hub.HfApi.snapshot_download = lambda *_, **__: "/nowhere"
