"""What explains what a group does? A copy of its state, for operators. Pure."""

from __future__ import annotations

from collections import Counter

from fleet.types import Band
from routing.scheduling.figure import rounded
from routing.scheduling.group import Group
from routing.scheduling.replica_figures import replica_report
from routing.scheduling.report import PoolReport, TenantReport, WaitingReport


def group_report(group: Group, now_s: float) -> PoolReport:
    """Copy everything that explains what a group does."""
    leased = Counter(lease.tenant for engine in group.engines for lease in engine.leases.values())
    waiting = (_waiting_report(group, model, now_s) for model in group.backlog.models())
    scale = group.scale
    report = PoolReport(
        name=group.pool,
        base_model=group.base_model,
        ttft_slo_s=group.slo.ttft_s,
        itl_slo_s=group.slo.itl_s,
        queued_by_band={band.value: group.backlog.in_band(band.rank) for band in Band},
        work_per_s=group.work.per_s,
        slots_per_s=group.slots_given.per_s,
        replicas_least=scale.most if scale.scaling is None else scale.scaling.least,
        replicas_most=scale.most,
        replicas_desired=None if scale.desired is None else scale.desired.replicas,
        desired_reason="" if scale.desired is None else scale.desired.reason,
        replicas=tuple(replica_report(engine, now_s) for engine in group.engines),
        tenants=tuple(_tenant_report(group, name, leased[name]) for name in group.tickets),
        waiting=tuple(sorted(waiting, key=lambda each: -each.oldest_s)),
    )
    return rounded(report)


def _tenant_report(group: Group, name: str, slots: int) -> TenantReport:
    report = TenantReport(
        name=name,
        band=next(band for band in Band if band.rank == group.ranks[name]),
        weight=group.weights[name],
        service_tokens=group.counters[name],
        queued=group.backlog.count(name),
        users=group.backlog.users(name),
        tickets=group.tickets[name],
        slots=slots,
        floods=name in group.floods.flooding,
        mean_completion_tokens=group.mean_completion_tokens[name],
    )
    return rounded(report)


def _waiting_report(group: Group, engine_model: str, now_s: float) -> WaitingReport:
    oldest = min(group.backlog.heads(engine_model), key=lambda ticket: ticket.request.arrived_s)
    waited_s = now_s - oldest.request.arrived_s
    queued = group.backlog.count_of_model(engine_model)
    return rounded(WaitingReport(engine_model, queued, waited_s, oldest.waits_for or ""))
