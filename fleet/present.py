"""Writes the present fleet as a fleet file: the declared document, with what was changed of tenants in it.

Comments, order and spelling of the document stay where its values do. A document in which the values cannot
be replaced one by one is written anew, without comments.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.changes import values_of
from fleet.document import read_document
from fleet.editing import CannotEdit, edited
from fleet.entries import NESTED, POOLS, differences, entry_of, flat, nested
from fleet.problems import Findings, FleetError
from fleet.state import holds_password
from fleet.types import BaseModel, Fleet, Pool, Tenant
from fleet.values import base_model_values
from fleet.writer import write_fleet

DATABASE = "TENANTRY_DATABASE"  # the variable that stands for a database's address with a password
_DEFAULTS = flat(entry_of(Tenant("", frozenset(), {})))
_HAS_NULL = "default_model"  # without one is not the same as leaving it out


def present_file(document: str, declared: Fleet, present: Fleet, load: Callable[[bytes], Fleet]) -> str:
    """Return a file of the present fleet. The document is that of the declared one; `load` reads another.

    Keys are those of the document, or hashes. Of a database's address with a password only a variable's name
    is written.
    """
    try:
        return _edited(document, declared, present, load)
    except CannotEdit:
        return write_fleet(_without_password(present), key_variables={})


def _edited(document: str, declared: Fleet, present: Fleet, load: Callable[[bytes], Fleet]) -> str:
    text = document.removeprefix("\ufeff")
    have = _values(text)
    if not _is_same(load, text, declared):
        raise CannotEdit
    want = _wanted(have, declared, present)
    if want != have:
        text = edited(text, have, want)
        if not _is_same(load, text, present):
            raise CannotEdit
    state = want.get("state")
    if (
        isinstance(state, dict)
        and isinstance(state.get("database"), str)
        and holds_password(state["database"])
    ):
        hidden = {**want, "state": {**state, "database": {"env": DATABASE}}}
        text = edited(text, want, hidden)
        if _values(text) != hidden:
            raise CannotEdit
    return text


def _values(text: str) -> Any:
    """Return what a document holds. Raises `CannotEdit`."""
    findings = Findings("")
    found = read_document(Path(), findings, text.encode())
    if found is None or findings.errors or not isinstance(found.data, dict):
        raise CannotEdit
    return found.data


def _wanted(have: dict[str, Any], declared: Fleet, present: Fleet) -> dict[str, Any]:
    """Return the document's values with those of tenants, of pools' members, and of models, that differ."""
    declared_entries = have.get("tenants") or {}
    tenants, pools = dict(declared_entries), copy.deepcopy(have[POOLS])
    for name in {**declared.tenants, **present.tenants}:
        before, now = declared.tenants.get(name), present.tenants.get(name)
        if before is now:
            continue
        if now is None:
            tenants.pop(name, None)
        elif before is None or before.key_hashes != now.key_hashes:
            tenants[name] = _new_entry(now)
        else:
            tenants[name] = _changed_entry(tenants.get(name, {}), declared, present, name)
    added = [model for model in present.base_models.values() if model.name not in declared.base_models]
    models = {**have["base_models"], **{model.name: _model_entry(model) for model in added}}
    for name, pool in present.pools.items():
        if pool.base_models != declared.pools[name].base_models:
            pools[name]["base_models"] = list(pool.base_models)
        pools[name]["tenants"] = _members(pools[name]["tenants"], declared.pools[name], pool)
    changed = {} if tenants == declared_entries else {"tenants": tenants}
    return {**have, "base_models": models, POOLS: pools, **changed}


def _model_entry(model: BaseModel) -> dict[str, Any]:
    """Return the entry of a base model that was added at run time: what it has otherwise than by default."""
    usual = base_model_values(BaseModel(model.name, ""))
    return {key: value for key, value in base_model_values(model).items() if value != usual.get(key)}


def _members(written: list[str], before: Pool, now: Pool) -> list[str]:
    """Return a pool's tenants in the order of the file; it may have more than the part that is served."""
    known, gone = frozenset(before.tenants), frozenset(before.tenants).difference(now.tenants)
    stays = [each for each in written if each not in gone]
    return stays + [each for each in now.tenants if each not in known]


def _new_entry(tenant: Tenant) -> dict[str, Any]:
    """Return the entry of a tenant that was admitted at run time, which has no key of a file."""
    values = {
        path: value
        for path, value in flat(entry_of(tenant)).items()
        if path == _HAS_NULL or path not in _DEFAULTS or value != _DEFAULTS[path]
    }
    return {"api_keys": [], **nested(values)}


def _changed_entry(entry: dict[str, Any], declared: Fleet, present: Fleet, name: str) -> dict[str, Any]:
    changed = copy.deepcopy(entry)
    differing = differences(values_of(declared, name), values_of(present, name))
    for path, (_, now) in differing.items():
        key, _, inner = path.partition(".")
        if path == POOLS:
            continue
        place = changed
        if inner:
            place = changed[key] = dict(changed.get(key) or {})
        if now is None and path != _HAS_NULL:
            place.pop(inner or key, None)
        else:
            place[inner or key] = now
        if key in NESTED and not changed.get(key):
            changed.pop(key, None)
    return changed | _unsaid_default(changed, present.tenants[name], differing)


def _unsaid_default(entry: dict[str, Any], tenant: Tenant, differing: Collection[str]) -> dict[str, Any]:
    """Return the default model of an entry that names none, where its changed models would mean another."""
    models = list(entry.get("models", ()))
    meant = models[0] if len(models) == 1 else None
    is_changed = any(path.startswith("models.") for path in differing)
    if _HAS_NULL in entry or not is_changed or tenant.default_model == meant:
        return {}
    return {_HAS_NULL: tenant.default_model}


def _is_same(load: Callable[[bytes], Fleet], text: str, present: Fleet) -> bool:
    try:
        found = replace(load(text.encode()), state=present.state)  # no change of a tenant changes that
        return _comparable(found) == _comparable(present)
    except FleetError:
        return False


def _comparable(fleet: Fleet) -> Fleet:
    """Return the fleet with what a file can say of it."""
    tenants = {name: replace(tenant, generation=0) for name, tenant in fleet.tenants.items()}
    pools = {name: replace(pool, tenants=tuple(sorted(pool.tenants))) for name, pool in fleet.pools.items()}
    return replace(fleet, tenants=tenants, pools=pools)


def _without_password(fleet: Fleet) -> Fleet:
    state = fleet.state
    if state.database is None or state.database_variable or not holds_password(state.database):
        return fleet
    return replace(fleet, state=replace(state, database_variable=DATABASE))
