"""One plan and one look are kept, across restarts."""

from __future__ import annotations

import pytest

from routing.catalog.plans import PlanDocument, PlanKind
from routing.errors import StateUnavailable
from routing.state import PlansStore, StateStore


def document(kind: PlanKind, text: str) -> PlanDocument:
    return PlanDocument(kind, 1.0, "key 12345678", text)


def test_the_last_one_of_each_kind_is_there_after_a_restart(store: StateStore, url: str) -> None:
    plans = PlansStore(store)
    assert plans.kept() == {}
    for text in ("1", "2"):
        plans.keep(document(PlanKind.PLAN, text))
        plans.keep(document(PlanKind.LOOK, text))
    store.close()
    again = StateStore(url)
    again.open()
    kept = PlansStore(again).kept()
    assert kept == {kind: document(kind, "2") for kind in PlanKind}
    again.close()


def test_a_new_plan_has_no_look_yet(store: StateStore) -> None:
    plans = PlansStore(store)
    plans.keep(document(PlanKind.LOOK, "of the old one"))
    plans.keep(document(PlanKind.PLAN, "{}"))
    assert list(plans.kept()) == [PlanKind.PLAN]


def test_without_the_database_it_is_said_so(store: StateStore) -> None:
    store.close()
    with pytest.raises(StateUnavailable):
        PlansStore(store).kept()
