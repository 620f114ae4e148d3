"""Keeps what the turns of whole models have learnt: the seconds of switches, and what operators pinned."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import delete, select

from routing.state.store import StateStore
from routing.state.tables import SwitchCostRow, TurnPinRow


class TurnsStore:
    """The tables of turns. Safe to use from several threads.

    Every method raises `StateUnavailable` while the database does not answer, or is not open yet.
    """

    def __init__(self, store: StateStore) -> None:
        """`store` has the connection, and is opened and closed by whoever made it."""
        self._transaction = store._transaction

    def costs(self) -> Mapping[tuple[str, str, str | None], float]:
        """Return the seconds of switches, by host, model, and the model that went for it."""
        with self._transaction(reads=True) as session:
            rows = session.scalars(select(SwitchCostRow))
            return {(row.host, row.model, row.went or None): row.seconds for row in rows}

    def keep_cost(self, host: str, model: str, went: str | None, seconds: float, way: str) -> None:
        """Replace what is known of a switch."""
        with self._transaction() as session:
            row = SwitchCostRow(host=host, model=model, went=went or "", seconds=seconds, way=way)
            session.merge(row)

    def pins(self, pool: str) -> Mapping[str, bool]:
        """Return the models of a pool that an operator has pinned, or let go, over its fleet's word."""
        with self._transaction(reads=True) as session:
            rows = session.scalars(select(TurnPinRow).where(TurnPinRow.pool == pool))
            return {row.model: row.pinned for row in rows}

    def keep_pin(self, pool: str, model: str, pinned: bool) -> None:
        """Replace what an operator has said of a model."""
        with self._transaction() as session:
            session.merge(TurnPinRow(pool=pool, model=model, pinned=pinned))

    def forget(self, pool: str, hosts: Collection[str], model: str) -> None:
        """Know nothing more of a model that has left a pool, whose hosts these are."""
        with self._transaction() as session:
            session.execute(delete(TurnPinRow).where(TurnPinRow.pool == pool, TurnPinRow.model == model))
            costs = SwitchCostRow.host.in_(hosts), SwitchCostRow.model == model
            session.execute(delete(SwitchCostRow).where(*costs))
