"""A fleet as tables on a terminal; keys are counted, never shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fleet.money import FACTOR_UNITS, PRICE_UNITS, Price, written
from fleet.problems import Problem
from fleet.sharing import Company, base_model_of, met_by, met_by_turns, pools_of, who_shares, who_uses
from fleet.types import BaseModel, Fleet, Pool, SchedulerSettings, Tenant
from tenantry.columns import Columns


def fleet_tables(fleet: Fleet, came: Mapping[str, str] = MappingProxyType({})) -> RenderableType:
    """Show the contents of a fleet; `came` says of base models how long switches to them took."""
    tables = [_base_models(fleet), _adapters(fleet), _tenants(fleet), _rates(fleet), _models(fleet)]
    tables += [
        _prices(fleet),
        _pools(fleet),
        _turns(fleet, came),
        _objectives(fleet),
        _scheduler(fleet.gateway.scheduler),
    ]
    return Group(*(table for table in tables if table.row_count))


def sharing_tables(fleet: Fleet) -> RenderableType:
    """Show shared engines by tenant, by replica and by model."""
    companies = who_shares(fleet)
    return Group(_tenants_met(fleet, companies), _replicas(companies), _users_of_models(fleet))


def print_problems(console: Console, problems: Iterable[Problem], *, style: str, word: str) -> None:
    """Print one problem a line, so that editors and scripts find `file:line:`."""
    for problem in problems:
        console.print(Text.assemble((f"{word}: ", style), str(problem)), soft_wrap=True)


def _tenants_met(fleet: Fleet, companies: list[Company]) -> Columns:
    table = _table(
        "Tenants",
        "tenant",
        "isolation",
        "pools",
        "shares engines with",
        spare=("pools",),
        prose=("pools", "shares engines with"),
    )
    for tenant in fleet.tenants.values():
        met = met_by(tenant.name, companies)
        met += [f"{name} (by turns)" for name in met_by_turns(tenant.name, companies) if name not in met]
        shares = ", ".join(met) or "nobody"
        table.add(tenant.name, tenant.isolation.value, ", ".join(pools_of(fleet, tenant)), shares)
    return table


def _replicas(companies: list[Company]) -> Columns:
    table = _table(
        "Replicas",
        "pool",
        "replica",
        "base model",
        "device",
        "tenants in one engine",
        spare=("base model", "pool", "device"),
        prose=("device", "tenants in one engine"),
    )
    for company in companies:
        beside = f" (beside {', '.join(company.beside)})" if company.beside else ""
        turns = f" (by turns with {len(company.by_turns_with)} more)" if company.by_turns_with else ""
        device = (company.device or "-") + turns + beside + _slice_note(company)
        alone = " (alone)" if len(company.tenants) == 1 else ""
        tenants = ", ".join(company.tenants) + alone if company.tenants else "nobody"
        table.add(company.pool, company.replica, company.base_model, device, tenants)
    return table


def _slice_note(company: Company) -> str:
    """Say what a MIG slice isolates, and with whom it has its GPU."""
    if not company.is_slice:
        return ""
    others = ", ".join(company.on_its_gpu)
    if company.gpu is None:
        others = "maybe others"
    return f" (memory of its own; on its GPU: {others or 'no other'})"


def _users_of_models(fleet: Fleet) -> Columns:
    table = _table(
        "Models",
        "pool",
        "base model",
        "adapter",
        "tenants that may ask for it",
        spare=("pool",),
        prose=("tenants that may ask for it",),
    )
    for use in who_uses(fleet):
        adapter = "none: the base model" if use.model == use.base_model else use.model
        table.add(use.pool, use.base_model, adapter, ", ".join(use.tenants))
    return table


def _base_models(fleet: Fleet) -> Columns:
    table = _table(
        "Base models",
        "name",
        "source",
        "dtype",
        "slots",
        "rank",
        "in host memory",
        "memory",
        spare=("in host memory", "rank", "dtype", "memory", "source"),
    )
    for model in fleet.base_models.values():
        slots = str(model.max_loras) if model.serves_adapters else "none"
        source = f"{model.source}@{model.revision}" if model.revision else _short(model.source)
        rank, on_host = (model.max_lora_rank, model.max_cpu_loras) if model.serves_adapters else ("-", "-")
        table.add(model.name, source, model.dtype, slots, rank, on_host, _memory(model))
    return table


def _memory(model: BaseModel) -> str:
    if model.kv_cache_bytes is not None:
        return f"KV cache {model.kv_cache_bytes / 2**30:g} GiB"
    utilization = model.gpu_memory_utilization
    return "vLLM's choice" if utilization is None else f"{utilization:.0%} of a GPU"


def _adapters(fleet: Fleet) -> Columns:
    caps = ["at once"] if any(adapter.max_concurrency for adapter in fleet.adapters.values()) else []
    table = _table(
        "Adapters",
        "name",
        "base model",
        "tenants",
        "source",
        *caps,
        spare=(*caps, "source", "base model"),
        prose=("tenants",),
    )
    for adapter in fleet.adapters.values():
        users = [t.name for t in fleet.tenants.values() if adapter.name in t.models.values()]
        at_once = [adapter.max_concurrency or "-"] if caps else []
        table.add(adapter.name, adapter.base_model, ", ".join(users) or "-", _short(adapter.source), *at_once)
    return table


def _tenants(fleet: Fleet) -> Columns:
    table = _table(
        "Tenants",
        "name",
        "keys",
        "priority",
        "weight",
        "at once",
        "waiting",
        "isolation",
        spare=("weight", "waiting", "isolation"),
    )
    for tenant in fleet.tenants.values():
        caps, per_model = tenant.caps, tenant.caps.max_concurrency_per_model
        at_once = f"{caps.max_concurrency}" + (f", {per_model} a model" if per_model else "")
        waiting = f"{caps.max_queued}, {caps.queue_timeout_s:g} s"
        isolation, band = tenant.isolation.value, tenant.band.value
        table.add(
            tenant.name,
            len(tenant.key_hashes),
            band,
            f"{tenant.weight:g}",
            at_once,
            waiting,
            isolation,
        )
    return table


def _rates(fleet: Fleet) -> Columns:
    """Show the caps that few tenants have."""
    table = _table(
        "Rates and tokens",
        "tenant",
        "requests a minute",
        "tokens a minute",
        "tokens waiting",
        "budget of a month",
        spare=("tokens waiting", "budget of a month", "requests a minute", "tokens a minute"),
    )
    for tenant in fleet.tenants.values():
        caps = tenant.caps
        budget = _budget(fleet, tenant)
        given = (caps.requests_per_minute, caps.tokens_per_minute, caps.max_queued_tokens, budget)
        if any(given):
            table.add(tenant.name, *(cap or "-" for cap in given))
    return table


def _budget(fleet: Fleet, tenant: Tenant) -> str | None:
    budget = tenant.budget
    if budget is None:
        return None
    if budget.monthly_cost is not None and fleet.prices is not None:
        return f"{written(budget.monthly_cost)} {fleet.prices.currency}"
    return f"{budget.monthly_tokens} tokens"


def _models(fleet: Fleet) -> Columns:
    table = _table(
        "Models of the tenants",
        "tenant",
        "asks for",
        "gets",
        "on base model",
        "in pool",
        spare=("on base model", "in pool"),
    )
    for tenant in fleet.tenants.values():
        for alias, model in tenant.models.items():
            base_model = base_model_of(fleet, model)
            asked = f"{alias} (or nothing)" if alias == tenant.default_model else alias
            pool = next(p for p in pools_of(fleet, tenant) if base_model in fleet.pools[p].base_models)
            gets = f"{model}, else {tenant.fallbacks[alias]}" if alias in tenant.fallbacks else model
            table.add(tenant.name, asked, gets, base_model, pool)
    return table


def _prices(fleet: Fleet) -> Columns:
    """Show what a million tokens and an hour cost."""
    currency = "" if fleet.prices is None else fleet.prices.currency
    table = _table(
        f"Prices in {currency}", "model", "tenant", "input", "cached", "output", "slot hour", "engine hour"
    )
    if fleet.prices is not None:
        _add_prices(table, "all", fleet.prices.models)
    for tenant in fleet.tenants.values():
        if tenant.prices is not None:
            _add_prices(table, tenant.name, tenant.prices.models)
            factor = written(tenant.prices.factor, FACTOR_UNITS)
            table.add("all others", tenant.name, *[f"x {factor}"] * 5)
    return table


def _add_prices(table: Columns, tenant: str, models: Mapping[str, Price]) -> None:
    for name, price in models.items():
        tokens = (price.input, price.cached_input, price.output)
        amounts = (*tokens, price.slot_hour, price.engine_hour)
        table.add(name, tenant, *(written(amount, PRICE_UNITS) for amount in amounts))


def _pools(fleet: Fleet) -> Columns:
    table = _table(
        "Pools",
        "name",
        "strategy",
        "base models",
        "replicas",
        "devices",
        "tenants",
        spare=("strategy", "devices"),
        prose=("base models", "devices", "tenants"),
    )
    for pool in fleet.pools.values():
        models, devices = ", ".join(pool.base_models), _devices(pool)
        scaling, replicas = pool.scaling, str(len(pool.replica_models))
        replicas = replicas if scaling is None else f"{scaling.least} to {replicas}"
        table.add(pool.name, pool.strategy.value, models, replicas, devices, ", ".join(pool.tenants))
    return table


def _devices(pool: Pool) -> str:
    if pool.mig is not None:
        return f"{pool.mig.count} x {pool.mig.profile} of GPU {pool.mig.gpu}"
    return " ".join(pool.devices) or "-"


def _turns(fleet: Fleet, came: Mapping[str, str]) -> Columns:
    """Show which base models are awake by turns, what they weigh and what switches to them took, as known."""
    table = _table(
        "Base models by turns",
        "pool",
        "hosts",
        "awake at once",
        "base models",
        "longest wait",
        spare=("hosts",),
        prose=("base models",),
    )
    for pool in (pool for pool in fleet.pools.values() if pool.strategy.shares_hosts):
        awake = "as many as fit" if pool.awake is None else str(pool.awake)
        models = ", ".join(_with_size(fleet, pool, name, came.get(name)) for name in pool.base_models)
        wait = f"{pool.residency.starvation_limit_s:g} s, one drain and one switch"
        table.add(pool.name, len(pool.hosts), awake, models, wait)
    return table


def _with_size(fleet: Fleet, pool: Pool, name: str, came: str | None) -> str:
    """A base model with its size on disk, if it is a folder here, and whether it comes first or stays."""
    notes = [word for word in ("pinned", "preload") if name in getattr(pool.residency, word)]
    folder = Path(fleet.base_models[name].source)
    if folder.is_absolute():
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        shown = f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
        notes = [*([shown] if size else []), *notes]
    notes += [came] if came else []
    return f"{name} ({', '.join(notes)})" if notes else name


def _objectives(fleet: Fleet) -> Columns:
    table = _table("Objectives", "pool", "first token within", "between tokens", "second replica after")
    for pool in fleet.pools.values():
        given = (pool.slo.ttft_s, pool.slo.itl_s, pool.hedge_after_s)
        if any(given):
            table.add(pool.name, *("-" if seconds is None else f"{seconds:g} s" for seconds in given))
    return table


def _scheduler(settings: SchedulerSettings) -> Columns:
    table = _table("Scheduler", "setting", "value", prose=("setting", "value"))
    table.add("lead of an adapter in a slot or in memory", f"{settings.locality_bonus_tokens:g} tokens")
    table.add("gain of a waiting request", f"{settings.aging_tokens_per_s:g} tokens a second")
    table.add("kept for each lower band", f"{settings.lower_band_share:.3g} of the grants")
    table.add("a flood fills a replica up to", f"{settings.burst_share:.3g} of it")
    table.add("a slot is drained after", f"{settings.slot_wait_s:g} s")
    table.add("waiting at most", f"{settings.max_queued} requests, {settings.max_queued_bytes / 2**20:g} MiB")
    return table


def _short(source: str) -> str:
    """Write a folder relative to the current one if it lies inside."""
    path = Path(source)
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):  # it lies outside, or the current folder is gone
        return source


def _table(title: str, *columns: str, spare: Collection[str] = (), prose: Collection[str] = ()) -> Columns:
    return Columns(*columns, spare=spare, prose=prose, title=title, note="so does a pipe")
