"""Which error does a client get for a model that its tenant has, and of which nothing answers? Pure."""

from __future__ import annotations

from engines.residency import ENGINE_DIED
from engines.words import in_a_line, without_paths
from routing.catalog.entries import AdapterEntry, Alias, Version
from routing.errors import ModelRetired, Quarantined, RequestError, Unavailable

RETRY_AFTER_NOT_READY_S = 5.0  # about the time to fetch, check and try a small adapter


def retired(alias: Alias) -> ModelRetired:
    """Tell that an alias leads to nothing any more."""
    return ModelRetired(
        f"The model `{alias.alias}` stands for `{alias.model}`, which was retired. Set the alias to another "
        "model, or remove it.",
        param="model",
    )


def why_unavailable(model: str, entry: AdapterEntry | None) -> RequestError:
    """Return why no version of an adapter answers: all were refused, or none is ready yet."""
    if entry is not None and entry.refused is not None:
        return _quarantined(model, entry.refused)
    return Unavailable(
        f"The model `{model}` is not ready yet.",
        code="adapter_unavailable",
        retry_after_s=RETRY_AFTER_NOT_READY_S,
    )


def _quarantined(model: str, version: Version) -> Quarantined:
    """Return why the version was refused. Only its owner and operators see a dying engine's last error."""
    # After a semicolon comes advice for the owner, which may name pools of other tenants.
    reason, _, _ = version.reason.partition(": " if version.reason.startswith(ENGINE_DIED) else ";")
    reason = in_a_line(without_paths(reason))
    return Quarantined(
        f"The model `{model}` is not served, since its version {version.number} was refused: {reason}",
        param="model",
    )
