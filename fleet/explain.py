"""Explains refused values: turns pydantic's errors into findings with remedies.

Never shows a value that stands under a key list: it may be a key.
"""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fleet import fields, prices, schema, settings
from fleet.problems import Findings, KeyPath, did_you_mean

_KEY_LISTS = frozenset({"api_keys", "operator_keys"})
_KEY_LIMITS = schema.TenantKeySection.model_fields.keys() - fields.KeySection.model_fields.keys() - {"name"}
_NAME_REMEDY = "rename it"
_KEY_REMEDY = (
    "write {sha256: <64 hex digits>} or {env: NAME}, never the key itself; `tenantry new-key` makes one"
)
_SECTIONS: dict[str, type[BaseModel]] = {
    "base_models": schema.BaseModelSection,
    "adapters": schema.AdapterSection,
    "tenants": schema.TenantSection,
    "pools": schema.PoolSection,
}
_SINGLE: dict[str, type[BaseModel]] = {
    "gateway": settings.GatewaySection,
    "state": settings.StateSection,
    "prices": prices.PricesSection,
}
_NESTED: dict[tuple[str, str], type[BaseModel]] = {
    ("tenants", "caps"): schema.CapsSection,
    ("tenants", "budget"): prices.BudgetSection,
    ("tenants", "prices"): prices.OwnPricesSection,
    ("pools", "slo"): schema.SloSection,
    ("pools", "mig"): schema.MigSection,
    ("pools", "residency"): schema.ResidencySection,
    ("gateway", "scheduler"): settings.SchedulerSection,
    ("gateway", "metrics"): settings.MetricsSection,
    ("gateway", "tracing"): settings.TracingSection,
    ("gateway", "batches"): settings.BatchesSection,
    ("gateway", "trusted_proxies"): settings.TrustedProxiesSection,
}
_WANTED = {
    "string_type": ("must be text", "put it in quotes"),
    "int_type": ("must be a whole number", "no quotes, no fraction"),
    "int_from_float": ("must be a whole number", "no fraction"),
    "float_type": ("must be a number", "no quotes, no unit"),
    "bool_type": ("must be true or false", "no quotes"),
    "tuple_type": ("must be a list", "write [a, b], or one item a line after `- `"),
    "dict_type": ("must be a mapping", "write one `name: value` a line, indented"),
    "model_type": ("must be a mapping", "write one `name: value` a line, indented"),
    "finite_number": ("must be a finite number", ""),
    "too_short": ("must not be empty", ""),
    "string_too_short": ("must not be empty", ""),
}
_URL = ("is no URL", "write it like http://host:port/path, without a user in it")
_FORMS = {  # by the key whose value is not of its form
    "devices": ("names no device", "write `0`, `0,1`, or the UUID of a GPU or MIG slice"),
    "gpu": ("names no GPU", "write its index as nvidia-smi counts, or its UUID (GPU-...)"),
    "profile": ("is no profile of a MIG slice", "write it like 1g.20gb; `tenantry mig plan` knows them"),
    "sha256": ("is no sha256", "write its 64 hexadecimal digits"),
    "currency": ("is no name of a currency", "write it like EUR: up to 16 letters and digits"),
    "folder": ("is no bucket", "write it like s3://bucket/folder, or leave it out"),
    "endpoint": _URL,
    "url": _URL,
}
_NO_VARIABLE = ("names no variable", "write letters, digits and `_`, as NAME_OF_IT")


def explain(error: ErrorDetails, findings: Findings) -> None:
    """Add one pydantic error to the findings."""
    path = tuple(error["loc"])
    kind = error["type"]
    if path and path[-1] == "[key]":
        findings.error(path[:-1], _reason(error), _NAME_REMEDY)
    elif kind == "extra_forbidden":
        findings.error(path, f"unknown key `{path[-1]}`", _known_key(path))
    elif kind == "missing":
        findings.error(path[:-1], f"`{path[-1]}` is missing", "add it")
    elif _KEY_LISTS & set(path) and path[-1] not in _KEY_LISTS | _KEY_LIMITS:
        findings.error(
            path, f"{'not an API key entry' if kind != 'value_error' else _reason(error)}", _KEY_REMEDY
        )
    elif kind in _WANTED:
        findings.error(path, *_WANTED[kind])
    elif kind == "string_pattern_mismatch":
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        findings.error(path, *_FORMS.get(key, _NO_VARIABLE))
    elif kind in ("enum", "literal_error"):
        findings.error(path, f"`{error['input']}` is not one of {_expected(error)}", _close(error))
    else:
        findings.error(path, _reason(error))


def _reason(error: ErrorDetails) -> str:
    reason = error["msg"].removeprefix("Value error, ")
    return reason.replace("Input should be", "must be").replace("String should", "must")


def _expected(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("expected", "")).replace("'", "`").replace(" or ", ", ")


def _close(error: ErrorDetails) -> str:
    known = [part.strip("` ") for part in _expected(error).split(",")]
    hint = did_you_mean(str(error["input"]), known)
    return hint if hint.startswith("did") else ""


def _known_key(path: KeyPath) -> str:
    """Suggest a known key for an unknown one, from this section or one level down."""
    wrong, section = str(path[-1]), section_at(path[:-1])
    if section is None:
        return ""
    own = [name for name in section.model_fields if name != wrong]
    nested = {
        f"{name}.{key}"
        for name, field in section.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
        if key == wrong
    }
    if nested:
        return f"did you mean `{min(nested)}`?"
    hint = did_you_mean(wrong, own)
    if section is schema.BaseModelSection and not hint.startswith("did"):
        return "further vLLM flags go into `vllm_args`"
    return hint


def without_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop "too short" of a list whose items are refused: pydantic counts only good ones."""
    around = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    return [error for error in errors if not (error["type"] == "too_short" and error["loc"] in around)]


def section_at(path: KeyPath) -> type[BaseModel] | None:
    """Return the class of the section at a path of the file."""
    if not path:
        return schema.FleetFile
    if len(path) == 1 and path[0] in _SINGLE:
        return _SINGLE[str(path[0])]
    if isinstance(path[-1], int) and path[-2] in _KEY_LISTS:
        return schema.TenantKeySection if path[0] == "tenants" else fields.KeySection
    if path[-3:-1] == ("prices", "models"):
        return prices.PriceSection
    if len(path) == 2 and path[0] in _SECTIONS:
        return _SECTIONS[str(path[0])]
    named = len(path) == (2 if path[0] in _SINGLE else 3)
    return _NESTED.get((str(path[0]), str(path[-1]))) if named else None
