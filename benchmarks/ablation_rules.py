"""Which rules does the scheduler have, and what stands for each of them while it is off?

A rule is off while a function or constant of the policies has a neutral form. The product has no switch for
that: owners are patched from outside, under the names that the policies have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from routing.scheduling import (
    accounts,
    affinity,
    drains,
    fairness,
    filters,
    group,
    leases,
    locality,
    scorers,
    selection,
    view,
)
from routing.scheduling.drains import Drains
from routing.scheduling.fairness import VirtualCounters
from routing.scheduling.floods import detection
from routing.scheduling.floods.detection import Floods
from routing.scheduling.floods.turns import Turn
from routing.scheduling.group import Group
from routing.scheduling.health import first_tokens
from routing.scheduling.health.limit import ConcurrencyLimit
from routing.scheduling.leases import SlotHolders, SlotNeed
from routing.scheduling.selection import WITH_SLOT
from routing.scheduling.state import Engine

Change = tuple[Any, str, Any]  # an owner, its attribute, and the neutral form of that


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and what stands for it while it is off."""

    name: str
    changes: tuple[Change, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Do without it for a while."""
        with ExitStack() as stack:
            for owner, name, neutral in self.changes:
                stack.enter_context(patch.object(owner, name, neutral))
            yield


def off(name: str, *changes: Change, **settings: float) -> Rule:
    """A rule by its name."""
    return Rule(name, changes, settings)


def always(value: Any) -> Callable[..., Any]:
    """A function with one answer."""
    return lambda *args, **kwargs: value


def places(**scores: float) -> Change:
    """Score some places of an adapter otherwise."""
    return (scorers, "SCORES", {place: scores.get(place.name, s) for place, s in affinity.SCORES.items()})


def gives_no_own(
    self: SlotHolders, need: SlotNeed, wait_s: float, *, found: Any = SlotHolders.must_give
) -> Any:
    """Give no slot of the same tenant before `slot_wait_s`."""
    gives, tenant = found(self, need, wait_s), need.request.target.tenant
    return lambda lease: gives(lease) and (lease.tenant != tenant or need.waited_too_long(wait_s))


def no_flood_holds(self: Drains, *, found: Any = Drains.slot_holders) -> Any:
    """Say of no holder that it floods."""
    return replace(found(self), flooding=frozenset())


def no_second_slot(self: Drains, queue: str, *, found: Any = Drains._heads) -> Any:
    """Leave out adapters that run elsewhere."""
    return () if queue == WITH_SLOT else found(self, queue)


def anywhere(*args: Any, found: Any = leases.slot_to_drain, **options: Any) -> Any:
    """Choose a slot as if no engine had the adapter in memory."""
    return found(*args, **options | {"where_in_memory": False})


def for_any(self: Drains, need: SlotNeed, holders: SlotHolders, *, where_in_memory: bool) -> Any:
    """Choose a slot for a flood that may not use it, too."""
    wait_s = self.settings.slot_wait_s
    return leases.slot_to_drain(
        self._engines, need, holders, slot_wait_s=wait_s, where_in_memory=where_in_memory
    )


def promised(engine: Engine, view: Any) -> str | None:
    """Give every free slot to the adapter for which one drains."""
    return None if engine.slot_drain is None else engine.slot_drain.adapter


def other_key(request: Any) -> str:
    """Give an adapter other homes."""
    return f"{request.target.adapter_id}'"


PLACEBO = off(
    "placebo: ties are broken otherwise", (group, "home_key", other_key), (scorers, "home_key", other_key)
)
RULES = (
    PLACEBO,
    off("arrival: any affinity", places(RUNNING=0.0, RESIDENT=0.0, HOME=0.0)),
    off("arrival: where it runs before where it is in memory", places(RUNNING=0.5)),
    off("arrival: where it is in memory", places(RESIDENT=0.0)),
    off("arrival: two homes", places(HOME=0.0)),
    off("arrival: where it runs up to `HOT_LOAD`", (affinity, "HOT_LOAD", 0.0)),
    off("arrival: `SPARE_LOAD` is never too much", (view, "SPARE_LOAD", 0.0)),
    off("arrival: `LOAD_SLACK`", (view, "LOAD_SLACK", 1e9)),
    off("arrival: least load", (Engine, "load", property(always(0.0)))),
    off("arrival, place: `READ_WAIT_S`", (locality, "READ_WAIT_S", 0.0)),
    off("arrival, place: `KV_FULL`", (filters, "KV_FULL", math.inf)),
    off("place: least service", (VirtualCounters, "__getitem__", always(0.0))),
    off("place: a completion token counts twice", (fairness, "COMPLETION_TOKEN_PRICE", 1.0)),
    off("place: who comes back is lifted", (VirtualCounters, "lift", always(None))),
    off("place: lengths of answers are learned", (group, "smoothed", lambda mean, newest: mean)),
    off("place: `aging_tokens_per_s`", aging_tokens_per_s=0.0),
    off("place: `locality_bonus_tokens`", locality_bonus_tokens=0.0),
    off("place: a second slot is behind", (selection, "SECOND_SLOT", 0.0)),
    off("place: 16 are looked at", (selection, "LOOKED_AT", 1), (drains, "LOOKED_AT", 1)),
    off("place: `lower_band_share`", lower_band_share=0.0),
    off("slots: drained at all", (drains, "slot_to_drain", always(None))),
    off("slots: 2, balance", (SlotHolders, "_without_one", always(-math.inf))),
    off("slots: 3, order", (SlotHolders, "must_give", gives_no_own)),
    off("slots: 4, time (`slot_wait_s`)", (SlotNeed, "waited_too_long", always(False))),
    off("slots: patience", (leases, "PATIENCE", 0.0)),
    off("slots: floods are not waited for", (Drains, "slot_holders", no_flood_holds)),
    off("slots: in memory first", (drains, "slot_to_drain", anywhere)),
    off(
        "slots: for the many", (Drains, "_most_lost_first", lambda self, heads: [head[2:] for head in heads])
    ),
    off("slots: a second one after `slot_wait_s`", (Drains, "_heads", no_second_slot)),
    off("slots: of whom it disturbs least", (SlotHolders, "order_of_eviction", always(0))),
    off("slots: not for a flood that may not run", (Drains, "_choose", for_any)),
    off(
        "slots: a flood's adapters take turns",
        (filters, "promised_to", promised),
        (selection, "promised_to", promised),
    ),
    off("floods", (Floods, "refresh", always(None))),
    off("floods: `burst_share`", burst_share=1.0),
    off("floods: bound while others crowd", (detection._Demand, "is_crowded", property(always(False)))),
    off("floods: bound while others do not", (detection, "FLOODS_AFTER_S", math.inf)),
    off("floods: which only after two seconds", (detection, "FLOODS_AFTER_S", 0.0)),
    off("floods: have sent as much", (detection._Demand, "bursts", always(True))),
    off("floods: are held down", (Floods, "_is_held_down", always(False))),
    off("floods: `MOST_TENANTS`", (detection, "MOST_TENANTS", math.inf)),
    off("floods: others are smoothed", (detection, "CALM_S", 1e-9)),
    off("floods: by turns", (Turn, "pass_time", always(None)), (detection, "AT_ONCE", 1.0)),
    off("floods: leave room", (filters, "_leaves_room", always(True))),
    off("floods: leave slots", (filters, "_leaves_a_slot", always(True))),
    off("health: outliers are halved", (group, "outliers", always(frozenset()))),
    off("health: first tokens by epochs", (first_tokens, "EPOCH_S", 0.0)),
    off("limit by `slo.itl_s`", (ConcurrencyLimit, "decide", always(None))),
    off("forecast: shedding by `slo.ttft_s`", (Group, "sheds", always(None))),
    off("forecast: of work", (Group, "predicted_wait_s", Group._wait_for_slot_s)),
    off("forecast: of slots", (Group, "_wait_for_slot_s", always(None))),
    off("overflow: multiples", (accounts, "may_grow", always(True))),
)
