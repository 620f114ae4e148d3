"""What was made at run time, and no longer counts once another fleet is declared? Pure.

Nothing of it refuses the other fleet, and nothing of it is deleted: it is kept, and counts again as soon as
it fits again.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleet.changes import Amended, values_of
from fleet.entries import differences
from fleet.tenant_change import TenantChange
from fleet.types import Tenant
from fleet.wording import in_words
from routing.catalog.directory import Directory
from routing.types import Target


def consequences(before: Amended, after: Amended, directory: Directory) -> list[str]:
    """Say what another declared fleet means for what was made at run time; `directory` is of the first."""
    was_odd, other = oddities(before), directory.under(after.fleet)
    told = [text for name, text in oddities(after).items() if was_odd.get(name) != text]
    told += [
        f"tenant {name}: what was set at run time fits again, and counts"
        for name in before.unfit
        if name not in after.unfit
    ]
    for name, tenant in before.fleet.tenants.items():
        now = after.fleet.tenants.get(name)
        found = _left_behind(tenant, directory) if now is None else _models(tenant, now, directory, other)
        told += [f"tenant {name}: {text}" for text in found]
    for name, change in after.changes.items():
        told += [f"tenant {name}: {text}" for text in _outvoted(before, after, change)]
    return told


def oddities(amended: Amended) -> dict[str, str]:
    """Say of each tenant whose change and declaration do not go together what counts."""
    found = ((name, _oddity(amended, name, change)) for name, change in amended.changes.items())
    return {name: f"tenant {name}: {text}" for name, text in found if text is not None}


def _oddity(amended: Amended, name: str, change: TenantChange) -> str | None:
    problems = amended.unfit.get(name)
    if problems is not None:
        served = "its keys open nothing" if name not in amended.fleet.tenants else "it is as declared"
        suspended = ", and stays suspended" if change.is_suspended and name in amended.fleet.tenants else ""
        return f"what was set at run time is not applied, {served}{suspended}: {'; '.join(problems)}"
    if name not in amended.declared.tenants:
        return None
    if change.removed:
        return f"is declared, and was removed by {change.changed_by}; it stays so"
    if change.apart:
        return f"was admitted anew by {change.changed_by}; nothing declared of it counts"
    if change.admitted:
        return "is declared, and was admitted at run time too: what was set then wins"
    return None


def _left_behind(tenant: Tenant, directory: Directory) -> Iterator[str]:
    """Tell of what a tenant had that is not in the fleet any more."""
    keys = (key for key in directory.keys() if key.tenant == tenant.name)  # noqa: SIM118 - no mapping
    counts = {
        "key": sum(key.revoked_s is None for key in keys),
        "adapter": sum(not entry.is_retired for entry in directory.adapters_of(tenant.name)),
        "alias": len(directory.aliases(tenant.name)),
    }
    shown = [f"{count} {_plural(word, count)}" for word, count in counts.items() if count]
    if shown:
        yield f"what was made at run time counts for nothing while the tenant is gone: {', '.join(shown)}"


def _models(before: Tenant, after: Tenant, directory: Directory, other: Directory) -> Iterator[str]:
    """Tell which of a tenant's own adapters and aliases lead elsewhere, or nowhere."""
    entries = [entry for entry in directory.adapters_of(before.name) if not entry.is_retired]
    names = {entry.key.name: f"its adapter {entry.key.name}" for entry in entries}
    names |= {alias.alias: f"its alias {alias.alias}" for alias in directory.aliases(before.name)}
    for name, shown in names.items():
        was, now = directory.describe(before, name), other.describe(after, name)
        if was is None or (now is not None and _meant(now) == _meant(was)):
            continue
        if now is None and name == was.adapter:
            yield f"{shown} answers nothing: no pool of the tenant has base model {was.base_model} any more"
        elif now is None:
            yield f"{shown} leads nowhere: {_meant(was)} can no longer be called"
        else:
            yield f"{shown} is hidden: the name means {_meant(now)} now"


def _meant(target: Target) -> str:
    if target.adapter is None:
        return f"base model {target.base_model}"
    return f"adapter {target.adapter}"


def _outvoted(before: Amended, after: Amended, change: TenantChange) -> Iterator[str]:
    """Tell which values the file changes in vain."""
    name = change.tenant
    if name in after.unfit or change.apart or change.removed or name not in before.declared.tenants:
        return
    if after.declared.tenants.get(name, before.declared.tenants[name]) == before.declared.tenants[name]:
        return
    declared = differences(values_of(before.declared, name), values_of(after.declared, name))
    for path, (was, now) in declared.items():
        here = change.values.get(path) or change.values.get(path.partition(".")[0])
        if here is None:
            continue
        for text in in_words({path: (was, now)}):
            yield f"{text} does not count: another value was set at run time by {here.by}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else "aliases" if word == "alias" else f"{word}s"
