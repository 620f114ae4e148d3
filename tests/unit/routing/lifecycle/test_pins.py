"""Which adapters may be pinned, by the states of their versions, and what is said of the others."""

from __future__ import annotations

import itertools

import pytest

from adapters.states import PREPARING, VersionState
from routing.catalog.entries import AdapterEntry, AdapterKey, Version
from routing.catalog.sources import Remote
from routing.errors import Conflict
from routing.lifecycle.pins import require_version, why_quarantined

KEY = AdapterKey("acme", "support")
READY, QUARANTINED, RETIRED = VersionState.READY, VersionState.QUARANTINED, VersionState.RETIRED


def entry(
    *states: VersionState, live: int | None = None, reason: str = "rank 128 is too large"
) -> AdapterEntry:
    versions = tuple(
        Version(n, KEY, n, Remote("hf://a/b"), state, reason) for n, state in enumerate(states, start=1)
    )
    return AdapterEntry(KEY, "base", declared=False, live=live, versions=versions)


@pytest.mark.parametrize("states", list(itertools.product(VersionState, repeat=2)), ids=" and ".join)
@pytest.mark.parametrize("live", [None, 1])
def test_a_pin_needs_a_version_that_answers_or_is_on_its_way(
    states: tuple[VersionState, VersionState], live: int | None
) -> None:
    adapter = entry(*states, live=live)
    allowed = (live == 1 and states[0] is READY) or bool(PREPARING & {*states})
    assert adapter.can_use_a_pin == allowed
    if allowed:
        require_version(adapter)
    else:
        with pytest.raises(Conflict) as refused:
            require_version(adapter)
        assert refused.value.code == "no_version_to_pin"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), "has no version that could answer; register one first"),
        ((RETIRED,), "has no version that could answer; register one first"),
        ((RETIRED, QUARANTINED), "Version 2 is quarantined: rank 128 is too large. Have it verified again"),
        ((READY, QUARANTINED), "No version of `support` is live; promote one first"),
    ],
)
def test_the_refusal_says_what_helps(states: tuple[VersionState, ...], said: str) -> None:
    with pytest.raises(Conflict) as refused:
        require_version(entry(*states))
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("/srv/state/ab/x.bin is broken", ": x.bin is broken."),
        ("", ": no reason was kept."),
        ("no. ", ": no."),
    ],
)
def test_the_reason_is_told_without_folders(reason: str, shown: str) -> None:
    (version,) = entry(QUARANTINED, reason=reason).versions
    assert f"Version 1 is quarantined{shown} Have it" in why_quarantined(version)
