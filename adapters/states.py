"""The states of an adapter's version and the allowed moves between them. Pure.

    registered -> fetching -> verifying -> ready -> retired
                      |           |          |
                      +-----------+----------+--> quarantined

A version whose work was interrupted, by a restart or by a source that does not answer, goes back to
`registered` and begins again. Nothing leaves `retired`.
"""

from __future__ import annotations

from enum import StrEnum

from adapters.errors import IllegalTransition


class VersionState(StrEnum):
    """The state of a version."""

    REGISTERED = "registered"  # known, nothing done yet
    FETCHING = "fetching"  # its files are on their way
    VERIFYING = "verifying"  # checked, then tried on an engine
    READY = "ready"  # may take traffic
    QUARANTINED = "quarantined"  # refused, with a reason; an operator may verify it again
    RETIRED = "retired"  # takes no new request; deleted once the last one has ended


_S = VersionState
PREPARING = frozenset({_S.REGISTERED, _S.FETCHING, _S.VERIFYING})  # on their way to `ready`
TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    _S.REGISTERED: frozenset({_S.FETCHING, _S.RETIRED}),
    _S.FETCHING: frozenset({_S.VERIFYING, _S.REGISTERED, _S.QUARANTINED, _S.RETIRED}),
    _S.VERIFYING: frozenset({_S.READY, _S.REGISTERED, _S.QUARANTINED, _S.RETIRED}),
    _S.READY: frozenset({_S.QUARANTINED, _S.RETIRED}),
    _S.QUARANTINED: frozenset({_S.REGISTERED, _S.RETIRED}),
    _S.RETIRED: frozenset(),
}


def check_transition(current: VersionState, wanted: VersionState) -> None:
    """Raise `IllegalTransition` if the move is not in the table."""
    if wanted not in TRANSITIONS[current]:
        raise IllegalTransition(f"a version that is {current} cannot become {wanted}")
