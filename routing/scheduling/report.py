"""What do operators see of the scheduler? A copy of its state at one moment; pure.

Each figure is declared here, once; the admin API shows the reports as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.types import Band
from routing.scheduling.decisions import Decision
from routing.scheduling.figure import figure
from routing.scheduling.replica_figures import ReplicaReport


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant that has something in a pool."""

    name: str = figure(example="example")
    band: Band = figure("Higher bands are served first.")
    weight: float = figure("Share among the tenants of its band.")
    service_tokens: float = figure(
        "Virtual counter: service it had, by weight, in prompt tokens' worth. Who has least is next; only "
        "differences mean anything."
    )
    queued: int = figure("Requests that wait.")
    users: int = figure("Users of whom requests wait; 0: since the queue began none was named.")
    tickets: int = figure("Requests that wait or run.")
    slots: int = figure("Slots it holds on these replicas.")
    floods: bool = figure("It asks for far more than others, so that these are kept some room.")
    mean_completion_tokens: float = figure("Of its requests lately; what the next is taken for.")


@dataclass(frozen=True, slots=True)
class WaitingReport:
    """What waits for one adapter, or for the base model."""

    engine_model: str = figure(
        "The engine's name of the adapter's version, or the base model.",
        example="example/support@1a2b3c4d5e6f7890",
    )
    queued: int = figure("Requests that wait.")
    oldest_s: float = figure("How long the first of them has waited.")
    waits_for: str = figure("Why that one had to wait, when it came.", example="no_slot")


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One base model of a pool; a pool with several base models is listed once for each."""

    name: str = figure(example="shared")
    base_model: str = figure("What these replicas serve.", example="llama-3-8b")
    ttft_slo_s: float | None = figure("Objective: arrival to first token; null: none.")
    itl_slo_s: float | None = figure("Objective: between two tokens of a stream; null: none.")
    queued_by_band: dict[str, int] = figure(
        "Requests that wait, by band.", example={"high": 0, "standard": 12, "low": 3}
    )
    work_per_s: float | None = figure(
        "Work done per second while somebody waits, in prompt tokens' worth; waits are forecast from it. "
        "null: nobody has waited yet."
    )
    slots_per_s: float | None = figure(
        "Slots that pass to a waiting adapter per second; null: nobody has waited for one yet."
    )
    replicas_least: int = figure("Fewest replicas that the fleet has it have.")
    replicas_most: int = figure("Most of them; the same where their number is fixed.")
    replicas_desired: int | None = figure(
        "Replicas that its work needs, within these; null: their number is fixed, or nothing is known yet."
    )
    desired_reason: str = figure(
        "Why so many.", example="need 2.6: 33 sequences run or wait, and a replica takes 12.8 (41 s ago)"
    )
    replicas: tuple[ReplicaReport, ...] = figure()
    tenants: tuple[TenantReport, ...] = figure("Those that have something waiting or running here now.")
    waiting: tuple[WaitingReport, ...] = figure("What waits, the longest waiting first.")


@dataclass(frozen=True, slots=True)
class SchedulerReport:
    """Everything the scheduler of one gateway holds."""

    now_s: float  # monotonic, as the decisions' `at_s`
    pools: tuple[PoolReport, ...]
    decisions: tuple[Decision, ...]  # the newest first
