"""Which step costs fit what was measured? Least squares of relative errors; runs no engine.

Measurements are a JSON list, one object for each load that an engine was held under:

    {"batch": 32, "adapters": 4, "slots": 8, "itl_ms": 41.5,
     "prefill_tokens": 0, "gpu_loads": 0, "disk_loads": 0, "adapter_tokens": 0}

`batch` is the mean number of sequences that decode in a step, `adapters` of distinct adapters among them,
`slots` is --max-loras and `itl_ms` the mean time between two tokens. The last four are means per step and 0
where they are left out, `adapter_tokens` those prefilled tokens that are of adapters' requests; anything else
in an object is ignored. A term that the measurements hold constant cannot be told from the base: it keeps the
value it had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from simulation.costs import StepCosts


@dataclass(frozen=True, slots=True)
class Measurement:
    """An engine under a steady load; everything per step."""

    batch: float
    adapters: float
    slots: float
    itl_ms: float
    prefill_tokens: float = 0.0
    gpu_loads: float = 0.0
    disk_loads: float = 0.0
    adapter_tokens: float = 0.0

    def terms(self) -> list[float]:
        """What each cost of `StepCosts` is multiplied with, in its order."""
        loads = [self.prefill_tokens, self.gpu_loads, self.disk_loads, self.adapter_tokens]
        return [1.0, self.batch, self.adapters, self.batch * self.adapters, self.slots, *loads]


def read_measurements(file: Path) -> list[Measurement]:
    """Read a list as described above. Raises OSError, and ValueError where it is none."""
    found = json.loads(file.read_text())
    known = [field.name for field in fields(Measurement)]
    if not isinstance(found, list) or not found:
        raise ValueError(f"{file}: a JSON list of measurements is needed")
    try:
        return [Measurement(**{name: float(one[name]) for name in known if name in one}) for one in found]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: every measurement needs batch, adapters, slots and itl_ms: {error}"
        ) from error


def fit(measurements: Sequence[Measurement], known: StepCosts) -> StepCosts:
    """Fit every term that varies, none below 0. Raises ValueError where measurements are too few."""
    if not measurements:
        raise ValueError("there is no measurement to fit to")
    terms = np.array([one.terms() for one in measurements])
    wanted = np.array([one.itl_ms for one in measurements])
    if (wanted <= 0).any():
        raise ValueError("itl_ms must be above 0")
    costs = np.array(list(asdict(known).values()))
    free = [index for index in range(terms.shape[1]) if index == 0 or np.ptp(terms[:, index]) > 0]
    if len(measurements) < len(free):
        raise ValueError(
            f"{len(free)} terms vary: at least as many measurements are needed, not {len(measurements)}"
        )
    while free:
        fixed = [index for index in range(terms.shape[1]) if index not in free]
        rest = wanted - terms[:, fixed] @ costs[fixed]
        found, *_ = np.linalg.lstsq(terms[:, free] / wanted[:, None], rest / wanted, rcond=None)
        costs[free] = np.maximum(found, 0.0)
        below = [index for index, cost in zip(free, found, strict=True) if cost < 0]
        if not below:
            break
        free = [index for index in free if index not in below]
    return StepCosts(*map(float, costs))


def errors(measurements: Sequence[Measurement], costs: StepCosts) -> list[float]:
    """Relative error of each measurement's time."""
    values = list(asdict(costs).values())
    return [float(np.dot(one.terms(), values)) / one.itl_ms - 1.0 for one in measurements]
