"""Checks whether an adapter may be pinned; its errors name the remedy. Pure."""

from __future__ import annotations

from adapters.states import VersionState
from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry, Version, without_folders
from routing.errors import Conflict


def require_version(entry: AdapterEntry) -> None:
    """Require a version that answers or is being prepared. Raises `Conflict`."""
    if entry.can_use_a_pin:
        return
    name, quarantined = entry.key.name, _newest(entry, VersionState.QUARANTINED)
    if _newest(entry, VersionState.READY) is not None:
        text = f"No version of `{name}` is live; promote one first."
    elif quarantined is not None:
        text = (
            f"No version of `{name}` can answer, so there is nothing to pin. {why_quarantined(quarantined)}"
        )
    else:
        text = f"`{name}` has no version that could answer; register one first."
    raise Conflict(text, code="no_version_to_pin")


def require_slot(entry: AdapterEntry, directory: Directory, slots: int) -> None:
    """Require that one slot of every replica stays free of pins. Raises `Conflict`."""
    pools = {pool for _, pool in directory.users_of(entry)}
    pinned = [
        other
        for other in directory.adapters()
        if other.pinned
        and other.can_use_a_pin
        and other.key != entry.key
        and other.base_model == entry.base_model
        and pools & {pool for _, pool in directory.users_of(other)}
    ]
    if len(pinned) + 1 >= slots:
        raise Conflict(
            f"{len(pinned)} of {slots} slots are pinned; one must stay free for all others.",
            code="no_slot_to_pin",
        )


def why_quarantined(version: Version) -> str:
    """Return why a version is quarantined, and the remedy."""
    reason = without_folders(version.reason).strip(" .") or "no reason was kept"
    return (
        f"Version {version.number} is quarantined: {reason}. Have it verified again (`retry`) or register a "
        "version that passes."
    )


def _newest(entry: AdapterEntry, state: VersionState) -> Version | None:
    return next((version for version in reversed(entry.versions) if version.state is state), None)
