"""Which adapters would engines with other settings hold no more?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.states import VersionState
from fleet.types import Fleet
from routing.catalog.entries import AdapterKey
from routing.lifecycle.fitting import misfits
from tests.fakes import entry_of, small_fleet, version_of

FLEET = small_fleet()
KEY = AdapterKey("a", "own")
OWN = entry_of("own", tenant="a")  # rank 8, of base model `base`


def with_model(**values: Any) -> Fleet:
    """The fleet with another base model."""
    return replace(FLEET, base_models={"base": replace(FLEET.base_models["base"], **values)})


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (FLEET, None),
        (with_model(max_lora_rank=8, max_loras=1), None),
        (with_model(max_lora_rank=1), "adapter a/own: it has rank 8, and max_lora_rank of `base` would be 1"),
        (with_model(max_loras=0), "adapter a/own: base model `base` would have no slots"),
        (replace(FLEET, base_models={}), None),  # it is kept, and answers nothing
    ],
)
def test_an_adapter_is_named_that_no_engine_could_hold(after: Fleet, words: str | None) -> None:
    found = misfits([OWN], FLEET, after)
    assert list(found) == ([] if words is None else [KEY])
    assert words is None or found[KEY].startswith(words)


def test_what_was_so_before_is_no_news() -> None:
    narrow = with_model(max_lora_rank=1)
    assert misfits([OWN], narrow, replace(narrow, pools={})) == {}


@pytest.mark.parametrize("state", [VersionState.RETIRED, VersionState.QUARANTINED, VersionState.VERIFYING])
def test_a_version_that_does_not_answer_has_no_say(state: VersionState) -> None:
    entry = entry_of("own", tenant="a", versions=[version_of(KEY, state=state)], live=None)
    assert misfits([entry], FLEET, with_model(max_lora_rank=1)) == {}


def test_a_declared_adapter_goes_with_its_declaration_and_moves_with_it() -> None:
    entry = entry_of("a-sales")
    assert misfits([entry], FLEET, replace(with_model(max_lora_rank=1), adapters={})) == {}
    other = replace(FLEET.base_models["base"], name="other", max_lora_rank=1)
    moved = replace(
        FLEET,
        base_models={"other": other},
        adapters={"a-sales": replace(FLEET.adapters["a-sales"], base_model="other")},
    )
    assert misfits([entry], FLEET, moved) == {
        AdapterKey(None, "a-sales"): "adapter a-sales: it has rank 8, and max_lora_rank of `other` would be 1"
    }
