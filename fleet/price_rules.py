"""Checks prices and budgets in money: names are declared, and all that a budget counts has a price. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.problems import Findings, KeyPath
from fleet.references import Known, base_model_of
from fleet.schema import FleetFile, TenantSection

_MODELS = ("models", "adapter or base model")
_REMEDY = "add `prices` with a currency and models"


def check_prices(file: FleetFile, known: Known, findings: Findings) -> None:
    """Check every price and every budget in money."""
    _check_names(("prices", "models"), () if file.prices is None else file.prices.models, known, findings)
    for name, tenant in file.tenants.items():
        path: KeyPath = ("tenants", name)
        if tenant.prices is not None:
            _check_names((*path, "prices", "models"), tenant.prices.models, known, findings)
            if file.prices is None:
                findings.error((*path, "prices"), "the fleet has no prices and no currency", _REMEDY)
        if tenant.budget is not None and tenant.budget.monthly_cost is not None:
            _check_money_budget(file, name, tenant, findings)


def _check_names(path: KeyPath, models: Iterable[str], known: Known, findings: Findings) -> None:
    for model in models:
        known.check((*path, model), model, _MODELS, findings)


def _check_money_budget(file: FleetFile, name: str, tenant: TenantSection, findings: Findings) -> None:
    """What has no price would cost nothing, so that the budget would not bound it."""
    path = ("tenants", name, "budget", "monthly_cost")
    if file.prices is None:
        findings.error(path, "the fleet has no prices, so nothing would count for it", _REMEDY)
        return
    priced = {*file.prices.models, *(tenant.prices.models if tenant.prices is not None else ())}
    for model, base_model in dict(_callable(file, name, tenant)).items():
        if not priced & {model, base_model}:
            findings.error(
                path,
                f"`{model}` has no price, so requests for it would not count",
                f"add `{model}` to `prices.models`, or use monthly_tokens",
            )


def _callable(file: FleetFile, name: str, tenant: TenantSection) -> Iterator[tuple[str, str]]:
    """Give (model, base model) of all that a tenant may call, or may add an adapter to."""
    for model in tenant.meanings.values():
        base_model = base_model_of(file, model)
        if base_model is not None:
            yield model, base_model
    for pool in file.pools.values():
        for base_model in pool.base_models if name in pool.tenants else ():
            section = file.base_models.get(base_model)
            if section is not None and section.max_loras:
                yield base_model, base_model
