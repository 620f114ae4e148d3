"""What is read from a body, and what does the engine get?"""

from __future__ import annotations

import orjson
import pytest

from engines.protocol import Kind
from routing.errors import InvalidRequest
from routing.openai.bodies import (
    CONTROL,
    Call,
    for_engine,
    parse,
    sane_request_id,
)
from routing.openai.endpoints import ENDPOINTS
from routing.openai.vllm_fields import FIELDS
from routing.types import Target

TARGET = Target("a", "support", "a-support", "base", "shared", 1, "a-support")


def call(kind: Kind, **fields: object) -> Call:
    return parse(kind, orjson.dumps(fields))


@pytest.mark.parametrize(
    ("kind", "fields", "sequences"),
    [
        (Kind.CHAT, {"messages": [{}]}, 1),
        (Kind.CHAT, {"messages": [{}], "n": 3}, 3),
        (Kind.COMPLETION, {"prompt": "one"}, 1),
        (Kind.COMPLETION, {"prompt": ["one", "two"]}, 2),
        (Kind.COMPLETION, {"prompt": ["one", "two"], "n": 2, "best_of": 4}, 8),
        (Kind.COMPLETION, {"prompt": [1, 2, 3]}, 1),
        (Kind.COMPLETION, {"prompt": [[1, 2], [3]]}, 2),
        (Kind.EMBEDDING, {"input": ["a", "b", "c"]}, 3),
        (Kind.EMBEDDING, {"input": [[{"role": "user"}], [{"role": "user"}]]}, 2),
        (Kind.EMBEDDING, {"messages": [{"role": "user"}, {"role": "user"}]}, 1),
        (Kind.EMBEDDING, {"messages": [[{"role": "user"}], [{"role": "user"}]]}, 2),
        (Kind.RESPONSE, {"input": [{"role": "user"}, {"role": "user"}]}, 1),
    ],
)
def test_a_request_occupies_choices_times_prompts(
    kind: Kind, fields: dict[str, object], sequences: int
) -> None:
    assert call(kind, **fields).sequences == sequences


@pytest.mark.parametrize("kind", list(CONTROL))
def test_every_endpoint_needs_its_content(kind: Kind) -> None:
    with pytest.raises(InvalidRequest, match="is required"):
        call(kind, model="support")


GIVEN: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}]}  # others are a text
SEVERAL = [
    (kind, first, second)
    for kind, endpoint in ENDPOINTS.items()
    for first in endpoint.content
    for second in endpoint.content
    if first != second
]


@pytest.mark.parametrize(("kind", "first", "second"), SEVERAL)
def test_what_is_read_comes_in_one_way(kind: Kind, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Or an engine might read what nobody has measured and looked at."""
    one: dict[str, object] = {name: GIVEN.get(name, "hi") for name in first}
    assert call(kind, **one).content == first[-1]
    for more in set(second) - set(first):
        with pytest.raises(InvalidRequest, match="not both") as caught:
            call(kind, **one, **{more: GIVEN.get(more, "hi")})
        assert caught.value.param in {*first, *second}


@pytest.mark.parametrize("kind", list(CONTROL))
@pytest.mark.parametrize(
    ("fields", "user", "sticky"),
    [
        ({}, "", ""),
        ({"user": "u"}, "u", "u"),
        ({"safety_identifier": "s"}, "s", "s"),
        ({"prompt_cache_key": "p"}, "", "p"),
        ({"user": "u", "safety_identifier": "s", "prompt_cache_key": "p"}, "s", "s"),
        ({"user": "u", "prompt_cache_key": "p"}, "u", "u"),
        ({"user": "u", "safety_identifier": None}, "u", "u"),
        ({"user": "", "safety_identifier": 7, "prompt_cache_key": "p"}, "", "p"),
        ({"metadata": {"user": "u"}}, "", ""),
    ],
)
def test_whom_a_request_is_for_has_one_name_on_every_route(
    kind: Kind, fields: dict[str, object], user: str, sticky: str
) -> None:
    made = call(kind, **CONTROL[kind], **fields)
    assert (made.user, made.sticky) == (user, sticky)


@pytest.mark.parametrize("kind", [kind for kind in CONTROL if "user" in FIELDS[kind]])
@pytest.mark.parametrize("value", [True, 0, -1.5, [], ["u"], {}, {"u": "u"}])
def test_a_user_that_is_no_text_is_refused_where_the_engine_knows_the_field(
    kind: Kind, value: object
) -> None:
    with pytest.raises(InvalidRequest, match="`user` must be"):
        call(kind, **CONTROL[kind], user=value)
    assert call(kind, **CONTROL[kind], user=None).user == ""


def test_a_long_name_of_a_user_is_kept_as_its_hash() -> None:
    names = ["u" * 64, "u" * 65, "u" * 1_000_000, "\u0000\n" * 100, "../" * 30]
    users = [call(Kind.COMPLETION, prompt="x", user=name).user for name in names]
    assert users[0] == names[0] and len(set(users)) == len(users)
    assert all(len(user) <= 64 for user in users) and all(user.isalnum() for user in users)


@pytest.mark.parametrize("field", ["adapter_id", "adapter_name"])
def test_a_field_of_other_servers_names_the_model(field: str) -> None:
    asked = call(Kind.CHAT, messages=[{}], model="placeholder", **{field: "support"})
    assert asked.model == "support"
    assert field not in orjson.loads(for_engine(asked, TARGET, cache_salt="salt", priority=2))


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ({"include_usage": True}, (True, False)),
        ({"include_usage": True, "continuous_usage_stats": True}, (True, True)),
        ({"include_usage": False, "continuous_usage_stats": True}, (False, False)),
        ({"continuous_usage_stats": True}, (False, False)),
        ({"include_usage": None, "continuous_usage_stats": True}, (False, False)),
        ({}, (False, False)),
        (None, (False, False)),
    ],
)
def test_running_usage_is_wanted_only_where_usage_is(options: object, wants: tuple[bool, bool]) -> None:
    asked = call(Kind.CHAT, messages=[{}], stream=True, stream_options=options)
    assert (asked.wants_usage, asked.wants_running_usage) == wants


def test_the_engine_gets_its_own_name_and_the_gateways_tenancy() -> None:
    asked = call(Kind.CHAT, model="support", messages=[{}], priority=-9, cache_salt="x", seed=7)
    body = orjson.loads(for_engine(asked, TARGET, cache_salt="salt", priority=2))
    assert body == {"model": "a-support", "messages": [{}], "priority": 2, "cache_salt": "salt", "seed": 7}


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (Kind.COMPLETION, {"prompt": "x", "prompt_logprobs": 0}, "prompt_logprobs"),
        (Kind.COMPLETION, {"prompt": "x", "echo": True, "logprobs": 0}, "echo"),
        (Kind.CHAT, {"messages": [{}], "prompt_logprobs": -1}, "prompt_logprobs"),
        (Kind.CHAT, {"messages": [{}], "echo": True}, "echo"),
        (Kind.CHAT, {"messages": [{}], "echo": "yes"}, "echo"),
    ],
)
def test_what_would_end_an_engine_with_slots_is_refused(
    kind: Kind, fields: dict[str, object], param: str
) -> None:
    asked = call(kind, **fields)
    with pytest.raises(InvalidRequest) as refused:
        for_engine(asked, TARGET, cache_salt="s", priority=0)
    assert refused.value.param == param
    assert for_engine(asked, TARGET, cache_salt="s", priority=0, has_slots=False)


def test_an_echo_without_log_probabilities_harms_nobody() -> None:
    assert for_engine(call(Kind.COMPLETION, prompt="x", echo=True), TARGET, cache_salt="s", priority=0)
    fine = call(Kind.CHAT, messages=[{}], logprobs=True, top_logprobs=5, echo=False)
    assert for_engine(fine, TARGET, cache_salt="s", priority=0)


def test_a_stream_is_asked_for_its_usage_beside_what_the_client_asked() -> None:
    options = {"continuous_usage_stats": True}
    asked = call(Kind.CHAT, messages=[{}], stream=True, stream_options=options)
    body = orjson.loads(for_engine(asked, TARGET, cache_salt="s", priority=0))
    assert body["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}


def test_a_response_stream_has_no_stream_options_of_ours() -> None:
    asked = call(Kind.RESPONSE, input="x", stream=True)
    assert b"stream_options" not in for_engine(asked, TARGET, cache_salt="s", priority=0)


@pytest.mark.parametrize(
    ("value", "sane"), [("abc-1.2:3_4", True), ("", False), ("-x", False), ("a b", False), ("a\n", False)]
)
def test_a_request_id_is_letters_digits_and_a_few_marks(value: str, sane: bool) -> None:
    assert sane_request_id(value) == (value if sane else None)
