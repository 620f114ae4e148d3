"""May an adapter be pinned as its versions stand, and if not, what helps? Pure."""

from __future__ import annotations

from adapters.states import VersionState
from routing.catalog.entries import AdapterEntry, Version, without_folders
from routing.errors import Conflict


def require_version(entry: AdapterEntry) -> None:
    """A version answers, or is on its way: it gets the slots once it is ready. Raises `Conflict`."""
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


def why_quarantined(version: Version) -> str:
    """Say why a quarantined version answers nothing, and what helps."""
    reason = without_folders(version.reason).strip(" .") or "no reason was kept"
    return (
        f"Version {version.number} is quarantined: {reason}. Have it verified again (`retry`) or register a "
        "version that passes."
    )


def _newest(entry: AdapterEntry, state: VersionState) -> Version | None:
    return next((version for version in reversed(entry.versions) if version.state is state), None)
