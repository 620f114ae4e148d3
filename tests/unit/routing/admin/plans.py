"""A plan and a look at it, as `tenantry plan` sends them."""

from __future__ import annotations

from typing import Any

SPREAD = [1.0, 0.9, 1.2]
MODEL: dict[str, Any] = {
    "model": "support",
    "pool": "base",
    "served": "adapter of base",
    "why": "same base as 2 others, 0.3 % of a device: adapter",
    "requests_per_day": 120.0,
    "objective_s": 2.0,
    "missed": None,
    "in_time": 1.0,
    "first_token_p50_s": SPREAD,
    "first_token_p99_s": SPREAD,
    "in_the_second_plan": None,
}
POOL: dict[str, Any] = {
    "pool": "base",
    "strategy": "multi-lora",
    "models": ["base"],
    "hosts": 1,
    "awake": 1,
    "device": "h100-80gb",
    "profile": None,
    "busy": SPREAD,
    "switching": None,
    "switches_per_h": None,
    "memory": {
        "device_bytes": 80 * 2**30,
        "awake": [{"model": "base", "weights_bytes": 2**34, "cache_bytes": 2**30, "other_bytes": 2**30}],
        "asleep_bytes": 0,
    },
    "hours": [0.1, 0.4],
}
PLAN: dict[str, Any] = {
    "source": "the ledger",
    "duration_s": 86_400.0,
    "meets_objectives": True,
    "devices": {"now": 4, "planned": 2},
    "money_per_hour": None,
    "ways": [{"way": "one fleet a model", "devices": 5, "money_per_hour": None, "why_not": ""}],
    "models": [MODEL],
    "pools": [POOL],
    "would_change": ["with half of the demand: 1 devices"],
    "not_known": ["faults are not simulated"],
}
LOOK: dict[str, Any] = {
    "from_s": 1.7e9,
    "to_s": 1.7e9 + 604_800,
    "wish": "consolidate",
    "advice": "consolidate",
    "said": "2 devices would do, 4 are in use",
    "devices": {"now": 4, "anew": 2},
    "models": [
        {
            "model": "support",
            "requests": 840,
            "requests_per_day": 120.0,
            "planned_requests_per_day": 100.0,
            "first_token_p50_s": 0.4,
            "first_token_p99_s": 1.1,
            "planned_p50_s": 0.5,
            "planned_p99_s": 1.2,
            "objective_s": 2.0,
            "in_time": 1.0,
            "is_late": False,
        }
    ],
    "pools": [
        {"pool": "base", "busy": 0.2, "planned_busy": 0.3, "switching": 0.0, "planned_switching": None}
    ],
    "differs": [],
}
