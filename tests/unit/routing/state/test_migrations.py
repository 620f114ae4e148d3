"""The tables' history: it leads to the tables of the code, once, whoever is first, and never backwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, make_url

from routing.catalog.entries import AdapterKey
from routing.errors import StateUnavailable
from routing.state import StateStore, database
from routing.state.tables import Table

ROOT = Path(__file__).parents[4]
KEY = AdapterKey("acme", "support")


def test_the_migrations_lead_to_the_tables_of_the_code(store: StateStore, url: str) -> None:
    engine = database.connect(make_url(url), wait_s=1)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        assert set(inspect(connection).get_table_names()) == {*Table.metadata.tables, "alembic_version"}
    engine.dispose()


def test_every_migration_can_be_undone(store: StateStore, url: str) -> None:
    engine = database.connect(make_url(url), wait_s=1)
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    store.open()
    assert store.load() == ([], [])


def test_a_database_that_is_up_to_date_is_opened_without_a_lock(sqlite_url: str) -> None:
    first, second = StateStore(sqlite_url), StateStore(sqlite_url, lock_wait_s=0.01)
    first.open()
    with first._transaction() as session:
        session.connection()
        second.open()
        assert second.load() == ([], [])
    first.close()
    second.close()


def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(store: StateStore, url: str) -> None:
    store.add_adapter(KEY, "base", declared=False)
    with store._transaction() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StateUnavailable, match=r"by a newer release \(revision 9999, this one knows up to 0013\)"
    ):
        StateStore(url).open()
    with store._transaction() as session:
        found = session.connection().exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        assert found == "9999"
    assert len(store.load()[0]) == 1


def test_a_migration_that_fails_leaves_no_half(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.connect(make_url(url), wait_s=1)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE events (id INTEGER)")  # in the way of the last table
    store = StateStore(url)
    with pytest.raises(StateUnavailable, match="already exists"):
        store.open()
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["events"]
        connection.exec_driver_sql("DROP TABLE events")
    engine.dispose()
    store.open()
    assert store.load() == ([], [])
    store.close()


OPENER = """
import sys
from routing.state import StateStore
from routing.catalog.entries import AdapterKey

store = StateStore(sys.argv[1], lock_wait_s=30)
print("ready", flush=True)
sys.stdin.readline()
store.open()
store.add_adapter(AdapterKey("acme", sys.argv[2]), "base", declared=False)
store.close()
"""


def test_several_processes_may_open_a_new_database_at_once(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPENER, url, f"adapter-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    store = StateStore(url)
    store.open()
    assert [entry.key.name for entry in store.load()[0]] == ["adapter-0", "adapter-1", "adapter-2"]
    store.close()


def test_usage_of_the_release_before_keys_is_kept_as_of_no_known_key(url: str) -> None:
    engine = database.connect(make_url(url), wait_s=1)
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    day = ("2026-01-09", "a", "support", "", 0, "shared", "completed", 2, 0, 10, 5, 0, 0.5, 1.0, 1.0, 1.0)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        values = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in day)
        connection.exec_driver_sql(f"INSERT INTO usage_days VALUES ({values})")
        command.upgrade(config, "head")
        kept = connection.exec_driver_sql("SELECT day, tenant, requests, prompt_tokens, key FROM usage_days")
        assert [tuple(row) for row in kept] == [("2026-01-09", "a", 2, 10, "")]
        primary = inspect(connection).get_pk_constraint("usage_days")["constrained_columns"]
        assert "key" in primary
    engine.dispose()
