"""Where does the ledger lie? Two tables of the state database; one transaction for each call.

A batch goes in by few statements: after each the thread waits for Python's lock, which the event loop holds.
SQLite works on the gateway's own CPU and gets many rows as the values of one statement, which costs it least;
PostgreSQL gets all as one JSON text, and takes that apart itself. A row and its part of the day's sums are
written together or not at all. Every call raises `StateUnavailable` while the database does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    select,
    type_coerce,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from routing.state.database import Database
from routing.state.tables import UsageDayRow, UsageRow
from routing.usage.budget import Use
from routing.usage.entries import COLUMNS, ID, Row, id_at
from routing.usage.query import DIMENSIONS, MAX_ROWS, MEASURES, UsageLine, UsageQuery, line

LOCK_WAIT_S = 5.0
CHUNK = 2000  # rows of one transaction that deletes
AT_ONCE = 128  # rows of one statement for SQLite, a power of two; more are not cheaper
_Records: Any = UsageRow.__table__
_Days: Any = UsageDayRow.__table__
_BATCH = "batch"


class UsageStore(Database):
    """The ledger's tables. For one thread; several processes may write at once."""

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        super().__init__(url, lock_wait_s=lock_wait_s)
        is_sqlite = self._url.get_backend_name() == "sqlite"
        self.is_shared = not is_sqlite  # other gateways may write to it
        self._add_records = _add_values if is_sqlite else _add_json
        self._add_to_days = _add_to_days(is_sqlite)

    def write(self, rows: Sequence[Row]) -> int:
        """Add rows and count them into their days; those that are there already change nothing.

        Returns how many were new. A call that raises may have written all of them, or none.
        """
        with self._transaction() as connection:
            try:
                with connection.begin_nested():
                    self._add(connection, rows)
            except IntegrityError:
                rows = _new(connection, rows)
                self._add(connection, rows)
        return len(rows)

    def used(
        self, owners: Iterable[str], first_day: str, end_day: str, *, by: str = "tenant"
    ) -> dict[str, Use]:
        """Return the tokens and the cost of tenants, or of keys.

        They are those from a first day up to but not including the last.
        """
        days, owner = _Days.c, _Days.c[by]
        tokens, cost = func.sum(days.prompt_tokens + days.completion_tokens), func.sum(days.cost)
        wanted = (
            select(owner, tokens, cost)
            .where(owner.in_(sorted(owners)), days.day >= first_day, days.day < end_day)
            .group_by(owner)
        )
        with self._transaction(reads=True) as connection:
            found = connection.execute(wanted)
            return {name: Use(int(tokens or 0), int(cost or 0)) for name, tokens, cost in found}

    def sums(self, query: UsageQuery) -> list[UsageLine]:
        """Return the lines of a query, in the order of their dimensions; at most one more than MAX_ROWS."""
        dimensions = [_Days.c[name] for name in query.group_by]
        measures = [func.sum(_Days.c[name]) for name in MEASURES]
        wanted = select(*dimensions, *measures).where(
            _Days.c.day.between(query.first.isoformat(), query.last.isoformat())
        )
        if query.tenant is not None:
            is_meant = _Days.c.tenant == query.tenant
            if query.former:
                is_meant |= _Days.c.tenant.startswith(f"{query.tenant}#", autoescape=True)
            wanted = wanted.where(is_meant)
        if dimensions:
            wanted = wanted.group_by(*dimensions).order_by(*dimensions)
        wanted = wanted.limit(MAX_ROWS + 1)
        with self._transaction(reads=True) as connection:
            return [line(query.group_by, tuple(found)) for found in connection.execute(wanted)]

    def prune(self, records_before_s: float, days_before: str) -> int:
        """Delete single records made before a Unix time, and days before a day; returns how many of both.

        Deletes one chunk of records; call again while there are more.
        """
        old = select(_Records.c.id).where(_Records.c.id < id_at(records_before_s)).limit(CHUNK)
        with self._transaction() as connection:
            records = connection.execute(delete(_Records).where(_Records.c.id.in_(old))).rowcount
            days = connection.execute(delete(_Days).where(_Days.c.day < days_before)).rowcount
        return int(records) + int(days)

    def _add(self, connection: Connection, rows: Sequence[Row]) -> None:
        self._add_records(connection, rows)
        ids = orjson.dumps([row[ID] for row in rows]).decode()
        connection.execute(self._add_to_days, {_BATCH: ids})

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Connection]:
        with self._using(reads=reads) as engine, engine.begin() as connection:
            yield connection


def _new(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are not there, each once; one in mid-commit elsewhere fails when it is added."""
    ids = select(_Records.c.id).where(_Records.c.id.in_([row[ID] for row in rows]))
    known = set(connection.execute(ids).scalars())
    return list({row[ID]: row for row in rows if row[ID] not in known}.values())


def _add_values(connection: Connection, rows: Sequence[Row]) -> None:
    """Add rows to SQLite, by statements of few different lengths, so that they stay prepared."""
    first = 0
    while left := len(rows) - first:
        size = min(AT_ONCE, 2 ** (left.bit_length() - 1))
        values = chain.from_iterable(rows[first : first + size])
        connection.exec_driver_sql(_insert_values(size), tuple(values))
        first += size


@cache
def _insert_values(size: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS))})"
    columns, values = ", ".join(COLUMNS), ", ".join([row] * size)
    return f"INSERT INTO {_Records.name} ({columns}) VALUES {values}"  # noqa: S608 - all names are ours


def _add_json(connection: Connection, rows: Sequence[Row]) -> None:
    """Add rows to PostgreSQL, as an array of arrays in JSON."""
    connection.execute(_INSERT_JSON, {_BATCH: orjson.dumps(rows).decode()})


def _insert_json() -> Any:
    batch: Any = bindparam(_BATCH)
    elements = func.jsonb_array_elements(sql_cast(batch, postgresql.JSONB))
    element: Any = elements.table_valued(column("value", postgresql.JSONB)).c.value
    values = (_typed(element[index], name).label(name) for index, name in enumerate(COLUMNS))
    return insert(_Records).from_select(COLUMNS, select(*values))


def _typed(element: Any, name: str) -> ColumnElement[Any]:
    if name == "cost":  # `as_integer` reads 32 bits
        return sql_cast(element.as_string(), BigInteger)
    kind = _Records.c[name].type.python_type
    reader = {str: "as_string", int: "as_integer", float: "as_float", bool: "as_boolean"}[kind]
    return type_coerce(getattr(element, reader)(), _Records.c[name].type)


_INSERT_JSON = _insert_json()


def _ids(is_sqlite: bool) -> Select[Any]:
    """Select the ids of a batch, an array in JSON."""
    batch: Any = bindparam(_BATCH)
    if is_sqlite:
        elements = func.json_each(batch)
    else:
        elements = func.jsonb_array_elements_text(sql_cast(batch, postgresql.JSONB))
    return select(elements.table_valued(column("value", Text)).c.value)


def _add_to_days(is_sqlite: bool) -> Any:
    """Add rows, by their ids, to the sums of days; in the order of the key: two writers cannot deadlock."""
    rows = _Records.c
    sums: dict[str, Any] = {name: func.sum(rows[name]) for name in MEASURES if name in rows}
    sums["requests"] = func.count()
    sums["priced_requests"] = func.count(rows.cost)
    sums["switch_s"] = func.coalesce(func.sum(rows.switch_s), 0.0)
    sums["cost"] = func.coalesce(func.sum(rows.cost), 0)
    sums["estimated_requests"] = func.sum(case((rows.estimated, 1), else_=0))
    keys = [func.coalesce(rows.key, "") if name == "key" else rows[name] for name in DIMENSIONS]
    added = select(*keys, *(sums[name] for name in MEASURES)).where(rows.id.in_(_ids(is_sqlite)))
    added = added.group_by(*keys).order_by(*keys)
    dialect: Any = sqlite if is_sqlite else postgresql
    statement = dialect.insert(_Days).from_select([*DIMENSIONS, *MEASURES], added)
    return statement.on_conflict_do_update(
        index_elements=list(DIMENSIONS),
        set_={name: _Days.c[name] + statement.excluded[name] for name in MEASURES},
    )
