"""Is the plan still right? What was planned beside what is measured, and whether another is better. Pure.

A look compares three things: the plan that was made, what the ledger shows of the last time, and a plan made
anew from that. What it would rather have is told only once two looks in a row wish the same, and is taken
back the same way: a week of holidays moves no fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from planning.forecast import is_missed
from planning.measuring import FEW
from planning.served import ModelSeen, Observed
from planning.values import DAY_S, HOUR_S

Answer = dict[str, Any]
OFTEN, SELDOM = 2.0, 0.5  # times as many requests as planned, from which it is told
LATE = 1.5  # times the planned p99 of the first token, from which it is told
TOLD = 20  # sentences
NAMED = 3  # models in a sentence


class Advice(StrEnum):
    """What would be better now."""

    STAY = "stay"
    CONSOLIDATE = "consolidate"  # at least one device fewer would do
    SPLIT = "split"  # objectives are missed, or hosts switch too much, and more devices would help
    REARRANGE = "rearrange"  # the same, and as many devices would do


def look(
    planned: Answer, anew: Answer, observed: Observed, *, switching: float, before: Answer | None
) -> Answer:
    """Return one look; `planned` and `anew` are answers of plans, `before` the look before this one.

    `switching` is the most of a device's time that switches may take. How long engines ran is shown and
    decides nothing: one that runs all the time may have nearly empty batches. Late first tokens tell.
    """
    models = _models(planned, anew, observed)
    pools = _pools(planned, observed)
    short = _short(
        [one["model"] for one in models if one["is_late"]],
        [one["pool"] for one in pools if one["switching"] > switching],
    )
    wish = _wish(anew, is_short=bool(short))
    known = Advice(before["advice"]) if before is not None else Advice.STAY
    advice = wish if before is not None and before["wish"] == wish else known
    return {
        "from_s": observed.from_s,
        "to_s": observed.to_s,
        "wish": wish.value,
        "advice": advice.value,
        "said": _said(wish, anew, short),
        "devices": {"now": anew["devices"]["now"], "anew": anew["devices"]["planned"]},
        "models": models,
        "pools": pools,
        "differs": _differs(models, pools),
    }


def _wish(anew: Answer, *, is_short: bool) -> Advice:
    now, devices = anew["devices"]["now"], anew["devices"]["planned"]
    if now is None or not anew["meets_objectives"]:
        return Advice.STAY
    if devices < now:
        return Advice.CONSOLIDATE
    if not is_short or not anew["moves"]:
        return Advice.STAY
    return Advice.SPLIT if devices > now else Advice.REARRANGE


def _short(late: Sequence[str], restless: Sequence[str]) -> str:
    """Say in a clause what falls short as it is; empty: nothing does."""
    said = []
    if late:
        said.append(f"{_named(late)} miss{'es its objective' if len(late) == 1 else ' their objectives'}")
    if restless:
        said.append(f"hosts of {_named(restless)} switch more than a plan allows")
    return "; ".join(said)


def _said(wish: Advice, anew: Answer, short: str) -> str:
    """Say in a sentence what this look has found."""
    now, devices = anew["devices"]["now"], anew["devices"]["planned"]
    if now is None:
        return "no fleet of today was named, so that nothing can be compared"
    if not anew["meets_objectives"]:
        return f"no plan meets all objectives{f'; as it is, {short}' if short else ''}"
    if wish is Advice.CONSOLIDATE:
        would = f"{_devices(devices)} would do, {now} are in use"
        return f"{would}; as it is, {short}" if short else would
    if wish is Advice.STAY:
        return (
            f"{short}, and no plan would serve it otherwise"
            if short
            else f"{_devices(now)}, as the plan has it"
        )
    other = f"{_devices(devices)} instead of {now}" if devices > now else "as many devices, used otherwise,"
    return f"{short}: {other} would meet all objectives, simulated"


def _devices(count: int) -> str:
    return f"{count} device{'' if count == 1 else 's'}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


# -- planned and measured -----------------------------------------------------------------------------------


def _models(planned: Answer, anew: Answer, observed: Observed) -> list[Answer]:
    was = {one["model"]: one for one in planned["models"]}
    return [
        {
            "model": one["model"],
            **_measured(
                observed.models.get(one["model"], ModelSeen()), one["objective_s"], observed.length_s
            ),
            "planned_requests_per_day": was[one["model"]]["requests_per_day"]
            if one["model"] in was
            else None,
            "planned_p50_s": _mean(was.get(one["model"]), "first_token_p50_s"),
            "planned_p99_s": _mean(was.get(one["model"]), "first_token_p99_s"),
        }
        for one in anew["models"]
    ]


def _measured(seen: ModelSeen, objective_s: float | None, length_s: float) -> Answer:
    """Return what was measured of a model."""
    first_s = np.asarray(seen.first_s)
    known = first_s[np.isfinite(first_s)]
    p50_s, p99_s = np.percentile(known, (50, 99)).tolist() if len(known) else (None, None)
    late = 0 if objective_s is None else int((first_s > objective_s).sum())
    return {
        "requests": seen.requests,
        "requests_per_day": seen.requests / length_s * DAY_S,
        "first_token_p50_s": p50_s,
        "first_token_p99_s": p99_s,
        "objective_s": objective_s,
        "in_time": None if objective_s is None or not len(first_s) else 1 - late / len(first_s),
        "is_late": is_missed(late, len(first_s)),
    }


def _mean(answer: Mapping[str, Any] | None, name: str) -> float | None:
    """Return the mean of a figure of a plan; None where it has none."""
    spread = None if answer is None else answer[name]
    return None if spread is None else float(spread[0])


def _pools(planned: Answer, observed: Observed) -> list[Answer]:
    was = {one["pool"]: one for one in planned["pools"]}
    return [
        {
            "pool": name,
            "busy": max(seen.engine_s.values(), default=0.0) / HOUR_S / seen.hosts,
            "planned_busy": _mean(was.get(name), "busy"),
            "switching": max(seen.switch_s.values(), default=0.0) / HOUR_S / seen.hosts,
            "planned_switching": _mean(was.get(name), "switching"),
        }
        for name, seen in sorted(observed.pools.items())
    ]


def _differs(models: Sequence[Answer], pools: Sequence[Answer]) -> list[str]:
    """Say what is far from the plan, each one sentence."""
    said = [text for one in models for text in _model_differs(one)]
    for pool in pools:
        switching, was = pool["switching"], pool["planned_switching"]
        if was is not None and switching > max(0.01, LATE * was):
            parts = f"{100 * switching:.0f} % of its busiest hour, planned {100 * was:.0f} %"
            said.append(f"pool {pool['pool']}: switches take {parts}")
    left = len(said) - TOLD
    return said if left <= 0 else [*said[:TOLD], f"and {left} more like these"]


def _model_differs(one: Answer) -> Iterator[str]:
    requests, was = one["requests_per_day"], one["planned_requests_per_day"]
    if was and max(one["requests"], was) >= FEW and not SELDOM < requests / was < OFTEN:
        yield f"`{one['model']}`: {requests:,.0f} requests a day, planned {was:,.0f}"
    p99_s, planned_s = one["first_token_p99_s"], one["planned_p99_s"]
    if p99_s is not None and planned_s and one["requests"] >= FEW and p99_s > LATE * planned_s:
        yield f"`{one['model']}`: first token p99 {p99_s:.2g} s, planned {planned_s:.2g} s"


def rest_s(before: Answer | None, interval_s: float, now_s: float) -> float:
    """Return the seconds until the next look is due; a restart of the watch is no reason for one."""
    return 0.0 if before is None else min(interval_s, max(0.0, before["to_s"] + interval_s - now_s))
