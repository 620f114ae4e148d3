"""Keeps the plan that was published last and the last look at it: one document of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from routing.catalog.plans import PlanDocument, PlanKind
from routing.state.store import StateStore
from routing.state.tables import PlanRow


class PlansStore:
    """The table of plans. Safe to use from several threads.

    Every method raises `StateUnavailable` while the database does not answer, or is not open yet.
    """

    def __init__(self, store: StateStore) -> None:
        """`store` has the connection, and is opened and closed by whoever made it."""
        self._transaction = store._transaction

    def kept(self) -> Mapping[PlanKind, PlanDocument]:
        """Return the documents that are there."""
        with self._transaction(reads=True) as session:
            rows = session.scalars(select(PlanRow))
            return {
                PlanKind(row.kind): PlanDocument(PlanKind(row.kind), row.at_s, row.actor, row.document)
                for row in rows
            }

    def keep(self, document: PlanDocument) -> None:
        """Replace the document of a kind. A look at another plan says nothing of a new one, and goes."""
        with self._transaction() as session:
            session.merge(
                PlanRow(
                    kind=document.kind.value,
                    at_s=document.at_s,
                    actor=document.actor,
                    document=document.text,
                )
            )
            old = session.get(PlanRow, PlanKind.LOOK.value)
            if document.kind is PlanKind.PLAN and old is not None:
                session.delete(old)
