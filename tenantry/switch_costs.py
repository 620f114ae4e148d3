"""What switches between whole models took on this machine, as its gateway has kept it; for `check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.loader import LoadedFleet
from fleet.problems import Findings, KeyPath
from fleet.types import Fleet, Pool
from planning.reading.ledger import read_switches
from planning.requests import DemandError
from tenantry.scheduler_tables import seconds

Took = Mapping[str, tuple[float, float]]  # base model -> the least and the most seconds of a switch to it


def switches_of(fleet: Fleet) -> Took:
    """Read what switches took; nothing where no gateway of this fleet has run on this machine."""
    url = fleet.state.database_url
    if not (url.startswith("sqlite") and any(pool.strategy.shares_hosts for pool in fleet.pools.values())):
        return {}
    took: dict[str, tuple[float, float]] = {}
    try:
        for came in read_switches(url):
            least, most = took.get(came.model, (came.took_s, came.took_s))
            took[came.model] = min(least, came.took_s), max(most, came.took_s)
    except DemandError:
        return {}
    return took


def in_words(took: Took) -> Mapping[str, str]:
    """Say of each model how long switches to it took."""
    return {
        model: f"comes in {' to '.join(dict.fromkeys(map(seconds, both)))}" for model, both in took.items()
    }


def warn_of(loaded: LoadedFleet, file: str, took: Took) -> Findings:
    """Warn of objectives that are shorter than each switch to a model has been."""
    findings = Findings(file, loaded.lines)
    for pool in loaded.fleet.pools.values():
        objective_s, path = pool.slo.ttft_s, ("pools", pool.name, "slo", "ttft_s")
        for model in _that_come(pool) if objective_s is not None else ():
            least_s = took.get(model, (0.0, 0.0))[0]
            if objective_s is not None and least_s > objective_s:
                _warn(findings, path, model, least_s, objective_s)
    return findings


def _that_come(pool: Pool) -> Iterator[str]:
    """Name the models of a pool that may have to come before they answer."""
    if pool.strategy.shares_hosts and (pool.awake is None or pool.awake < len(pool.base_models)):
        yield from (model for model in pool.base_models if model not in pool.residency.pinned)


def _warn(findings: Findings, path: KeyPath, model: str, least_s: float, objective_s: float) -> None:
    findings.warn(
        path,
        f"no switch to `{model}` took less than {seconds(least_s)} here, and the objective is "
        f"{seconds(objective_s)}: who waits for one is late",
        "raise it, or awake, or pin the model",
    )
