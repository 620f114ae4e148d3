"""What is in `http.cors`, and what does it do to an application?"""

from __future__ import annotations

from typing import Any

import pytest

from routing.http.cors import EXPOSED, options_of, with_cors
from tests.fakes import Client, respond

HERE, ELSEWHERE = "https://app.example", "https://evil.example"
ON: dict[str, Any] = {"enabled": True, "access_control_allow_origins": HERE}


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 401, {}, {"vary": "accept-encoding"})


def preflight(
    settings: dict[str, Any], origin: str, method: str = "POST", headers: str = "authorization"
) -> Client:
    asked = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", headers),
    ]
    return Client(with_cors(answering, settings), "/v1/models", method="OPTIONS", headers=asked)


@pytest.mark.parametrize("settings", [{}, {"enabled": False, "access_control_allow_origins": "*"}])
def test_it_costs_nothing_where_it_is_off(settings: dict[str, Any]) -> None:
    assert with_cors(answering, settings) is answering


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"enabled": True}, "needs http.cors.access_control_allow_origins"),
        ({"enabled": True, "access_control_allow_origin_regex": ".*"}, "needs"),
        ({**ON, "access_control_allow_origin_regex": "("}, "access_control_allow_origin_regex: missing"),
    ],
)
def test_what_cannot_work_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options_of(settings)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
async def test_a_preflight_of_what_openais_clients_send_is_answered(method: str) -> None:
    headers = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    client = await preflight(ON, HERE, method, headers)()
    assert client.status == 200
    assert client.headers["access-control-allow-origin"] == HERE
    assert method in client.headers["access-control-allow-methods"]
    assert client.headers["access-control-allow-headers"] == headers


async def test_a_page_from_elsewhere_gets_no_leave() -> None:
    client = await preflight(ON, ELSEWHERE)()
    assert client.status == 400 and "access-control-allow-origin" not in client.headers
    client = await Client(with_cors(answering, ON), "/", method="GET", headers=[("origin", ELSEWHERE)])()
    assert client.status == 401 and "access-control-allow-origin" not in client.headers


async def test_an_answer_says_who_may_read_it_and_which_headers() -> None:
    client = await Client(with_cors(answering, ON), "/", method="GET", headers=[("origin", HERE)])()
    assert client.status == 401
    assert client.headers["access-control-allow-origin"] == HERE
    assert client.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
    assert client.headers["vary"] == "accept-encoding, Origin"


async def test_every_setting_counts() -> None:
    settings = {
        "enabled": True,
        "access_control_allow_origins": ["https://one.example"],
        "access_control_allow_origin_regex": r"https://.*\.two\.example",
        "access_control_allow_credentials": True,
        "access_control_allow_methods": "POST",
        "access_control_allow_headers": "authorization",
        "access_control_max_age": 7,
        "access_control_expose_headers": "x-request-id",
    }
    client = await preflight(settings, "https://a.two.example")()
    assert client.status == 200
    assert client.headers["access-control-allow-origin"] == "https://a.two.example"
    assert client.headers["access-control-allow-credentials"] == "true"
    assert client.headers["access-control-allow-methods"] == "POST"
    assert client.headers["access-control-max-age"] == "7"
    assert (await preflight(settings, HERE)()).status == 400
    assert (await preflight(settings, "https://one.example", "DELETE")()).status == 400
    assert (await preflight(settings, "https://one.example", headers="x-other")()).status == 400
    answer = Client(with_cors(answering, settings), "/", headers=[("origin", "https://one.example")])
    assert (await answer()).headers["access-control-expose-headers"] == "x-request-id"
