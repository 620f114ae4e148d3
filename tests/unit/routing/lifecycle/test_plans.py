"""When is a look at the plan an event, and what of it survives a restart?"""

from __future__ import annotations

import json
from typing import cast

import pytest

from routing.catalog.plans import PlanDocument, PlanFigures, PlanKind
from routing.errors import StateUnavailable
from routing.lifecycle.plans import Plans
from routing.lifecycle.registry import Registry


class FakeRegistry:
    """Keeps documents and events, or does not answer."""

    def __init__(self) -> None:
        self.documents: dict[PlanKind, PlanDocument] = {}
        self.events: list[str] = []
        self.breaks = False

    async def plans(self) -> dict[PlanKind, PlanDocument]:
        return self.documents

    async def keep_plan(self, document: PlanDocument) -> None:
        if self.breaks:
            raise StateUnavailable("The state database does not answer.", retry_after_s=1)
        self.documents[document.kind] = document

    async def record(self, subject: str, text: str) -> None:
        self.events.append(f"{subject} {text}")


def made() -> tuple[FakeRegistry, Plans]:
    registry = FakeRegistry()
    return registry, Plans(cast(Registry, registry))


def seen(advice: str) -> tuple[str, PlanFigures, str]:
    figures = PlanFigures(4, 2, advice, 5.0)
    told = {"devices": {"now": 4, "anew": 2}, "advice": advice, "to_s": 5.0}
    return json.dumps(told), figures, "2 devices would do"


async def test_advice_is_an_event_when_it_changes_and_when_it_no_longer_holds() -> None:
    registry, plans = made()
    for advice in ("stay", "consolidate", "consolidate", "stay", "stay"):
        await plans.look(*seen(advice))
    assert registry.events == ["plan consolidate: 2 devices would do", "plan stay: no longer consolidate"]


async def test_after_a_restart_the_last_look_counts_and_advice_is_not_told_again() -> None:
    registry, plans = made()
    await plans.load()
    assert plans.figures is None
    await plans.look(*seen("consolidate"))
    again = Plans(cast(Registry, registry))
    await again.load()
    assert again.figures == PlanFigures(4, 2, "consolidate", 5.0)
    await again.look(*seen("consolidate"))
    assert len(registry.events) == 1


@pytest.mark.parametrize("text", ["no json", "[]", '{"devices": {}}'])
async def test_a_look_of_another_release_keeps_no_gateway_from_starting(text: str) -> None:
    registry, plans = made()
    registry.documents[PlanKind.LOOK] = PlanDocument(PlanKind.LOOK, 1.0, "key 12345678", text)
    await plans.load()
    assert plans.figures is None


async def test_a_new_plan_is_an_event_and_no_look_was_at_it() -> None:
    registry, plans = made()
    await plans.look(*seen("consolidate"))
    await plans.publish("{}", "published: 2 devices")
    assert registry.events[-1] == "plan published: 2 devices"
    assert plans.figures is None


async def test_what_is_not_kept_is_no_figure_and_no_event() -> None:
    registry, plans = made()
    registry.breaks = True
    with pytest.raises(StateUnavailable):
        await plans.look(*seen("consolidate"))
    assert (plans.figures, registry.events) == (None, [])
