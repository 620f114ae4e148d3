"""Do costs of switches and pins of operators survive a restart, the last word of each?"""

from __future__ import annotations

import pytest

from routing.errors import StateUnavailable
from routing.state import StateStore, TurnsStore


def test_what_was_kept_last_is_there_after_a_restart(store: StateStore, url: str) -> None:
    turns = TurnsStore(store)
    for seconds in (20.0, 0.5):
        turns.keep_cost("mesh-0", "even", "odd", seconds, "put")
    turns.keep_cost("mesh-0", "even", None, 21.5, "cold")
    for pinned in (True, False):
        turns.keep_pin("mesh", "even", pinned)
    turns.keep_pin("other", "odd", True)
    store.close()
    again = StateStore(url)
    again.open()
    turns = TurnsStore(again)
    assert turns.costs() == {("mesh-0", "even", "odd"): 0.5, ("mesh-0", "even", None): 21.5}
    assert turns.pins("mesh") == {"even": False} and turns.pins("third") == {}
    again.close()


def test_a_model_that_has_left_a_pool_is_forgotten_there_alone(store: StateStore) -> None:
    turns = TurnsStore(store)
    for host in ("mesh-0", "other-0"):
        turns.keep_cost(host, "even", "odd", 1.0, "put")
    turns.keep_cost("mesh-0", "odd", "even", 2.0, "put")
    for pool, model in (("mesh", "even"), ("mesh", "odd"), ("other", "even")):
        turns.keep_pin(pool, model, True)
    turns.forget("mesh", ["mesh-0", "mesh-1"], "even")
    assert turns.costs() == {("other-0", "even", "odd"): 1.0, ("mesh-0", "odd", "even"): 2.0}
    assert turns.pins("mesh") == {"odd": True} and turns.pins("other") == {"even": True}


def test_without_the_database_it_is_said_so(store: StateStore) -> None:
    turns = TurnsStore(store)
    store.close()
    with pytest.raises(StateUnavailable):
        turns.costs()
    with pytest.raises(StateUnavailable):
        turns.keep_pin("mesh", "even", True)
