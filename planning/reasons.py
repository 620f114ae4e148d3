"""Why is a model served so? One line for each, with the figures that decided. Pure."""

from __future__ import annotations

from planning.loads import Load
from planning.sharing import Rules, Sharing
from planning.switching import is_alike
from planning.units import OPEN
from planning.words import counted


def served_as(sharing: Sharing, load: Load, model: str) -> str:
    """Say in a clause how a model is served."""
    is_adapter = model != load.unit.base.name
    what = f"adapter of {load.unit.base.name}" if is_adapter else "whole"
    if sharing.profile is not None:
        return f"{what}, slice {sharing.profile.name}"
    if len(sharing.loads) == 1:
        copies = f"{sharing.hosts} x " if sharing.hosts > 1 else ""
        devices = counted(load.devices, "device") if load.devices > 1 else "a device"
        return f"{what}, {copies}{devices} of its own" if not is_adapter else what
    if not sharing.takes_turns:
        return f"{what}, beside {_others(sharing)}"
    if load.unit.base.name in sharing.pinned:
        return f"{what}, always awake among {_others(sharing)}"
    return f"{what}, by turns with {_others(sharing)}"


def why(sharing: Sharing, load: Load, model: str, rules: Rules) -> str:
    """Say in one line why."""
    reasons = [_contract(load), _place(sharing, load, model, rules)]
    return "; ".join(reason for reason in reasons if reason)


def _contract(load: Load) -> str:
    circle = load.unit.circle
    if circle == OPEN:
        return ""
    kind, _, name = circle.partition(" ")
    return f"{name} shares no device with other groups" if kind == "group" else "contract: dedicated"


def _place(sharing: Sharing, load: Load, model: str, rules: Rules) -> str:
    asked = _asked(load, model)
    if model != load.unit.base.name:
        others = len(load.unit.adapters) - 1
        base = f"same base as {counted(others, 'other')}" if others else "the only adapter of its base"
        return f"{base}, {asked}: adapter"
    if sharing.profile is not None:
        gib = load.need_bytes / 2**30
        return f"needs {gib:.1f} GiB, {asked}: a slice is enough"
    if len(sharing.loads) == 1:
        return _alone(sharing, load, rules, asked)
    if not sharing.takes_turns:
        return f"fits beside {_others(sharing)}, {asked}: all stay awake"
    return _turns(sharing, load, model, rules, asked)


def _alone(sharing: Sharing, load: Load, rules: Rules, asked: str) -> str:
    if sharing.hosts > 1:
        return f"{load.load:.1f} devices busy, at most {100 * rules.busy:.0f} % each: {sharing.hosts} copies"
    if load.unit.adapters:
        return f"carries {counted(len(load.unit.adapters), 'adapter')}, {asked}"
    if load.unit.circle != OPEN:
        return asked
    return f"{asked}, and nothing that may share fits beside it or takes turns with it in time"


def _turns(sharing: Sharing, load: Load, model: str, rules: Rules, asked: str) -> str:
    switch = _switch(sharing, load)
    objective = load.unit.ttft_s
    if load.unit.base.name in sharing.pinned:
        if objective is not None and not rules.awake & {*load.unit.models}:
            return f"objective {objective:g} s, a switch takes {switch}: stays awake"
        return f"by turns it missed its objective in the simulation, a switch takes {switch}: stays awake"
    missed = sharing.misses[sharing.loads.index(load)]
    within = f", objective {objective:g} s" if objective is not None else ""
    asleep = f"asleep for {100 * missed:.2g} % of its requests"
    return f"{asked}, {asleep}, a switch takes {switch}{within}: takes turns"


def _switch(sharing: Sharing, load: Load) -> str:
    """Say what a switch takes: after one of its shape, after another, as far as such may go for it."""
    others = [one for one in sharing.loads if one is not load and one.unit.base.name not in sharing.pinned]
    kinds = {is_alike(load, one) for one in others} or {False}
    times = [f"{sharing.switches.of(load, same_shape=same):.2g} s" for same in sorted(kinds, reverse=True)]
    return " or ".join(dict.fromkeys(times))


def _asked(load: Load, model: str) -> str:
    demand = next((one for one in load.unit.demands if one.model == model), None)
    whole = sum(one.requests for one in load.unit.demands)
    part = load.load * (demand.requests / whole if demand is not None and whole else 0.0)
    return f"{100 * part:.2g} % of a {'slice' if '/' in load.cost.device else 'device'}"


def _others(sharing: Sharing) -> str:
    return counted(len(sharing.loads) - 1, "other")
