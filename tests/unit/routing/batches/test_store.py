"""Names of files and batches in SQLite and PostgreSQL: each tenant's own, whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines.protocol import Kind
from routing.batches.store import BatchStore, Page
from routing.batches.values import Batch, BatchStatus, Counts, Mistake, StoredFile
from tests.unit.routing.state.conftest import server, sqlite_url, url

__all__ = ["server", "sqlite_url", "url"]
ODD = ["", "\0", "a\0b", "'; drop table files; --", "%", "ü\u202e", "x" * 100_000]


def file(number: int, account: str = "a") -> StoredFile:
    return StoredFile(f"file-{account}{number}", account, "batch", "größer.jsonl", 5, 10.0 * number, 1e9)


def batch(number: int, account: str = "a", **changes: object) -> Batch:
    told = {"metadata": {"a": "\0\u202e", "": "ü"}, "counts": Counts(3, 2, 1), **changes}
    made = {"id": f"batch_{account}{number}", "account": account, "key": "key", "home": "home"}
    return Batch(**made, endpoint=Kind.CHAT, input_file="file-a1", created_s=1.0, expires_s=2.0, **told)  # type: ignore[arg-type]


@pytest.fixture
def store(url: str) -> Iterator[BatchStore]:
    store = BatchStore(url)
    store.open()
    yield store
    store.close()


def test_what_is_put_is_found_by_its_tenant_alone(store: BatchStore) -> None:
    mistakes = (Mistake("invalid_json_line", "This line is not valid JSON.", 7),)
    ended = batch(1, mistakes=mistakes).now(BatchStatus.FAILED, 5.0)
    store.add_file(file(1))
    store.put(ended, [file(2)])
    assert (store.file("a", "file-a1"), store.file("a", "file-a2")) == (file(1), file(2))
    assert store.batch("a", ended.id) == ended
    assert store.file("b", "file-a1") is None and store.batch("b", ended.id) is None
    assert not store.remove_file("b", "file-a1") and store.file("a", "file-a1") is not None
    assert store.held("a").files == 2 and store.held("b").files == 0


@pytest.mark.parametrize("odd", ODD)
def test_what_nobody_has_is_not_found(store: BatchStore, odd: str) -> None:
    store.put(batch(1), [file(1)])
    assert store.file("a", odd) is None and store.batch("a", odd) is None
    assert not store.files("a", Page(9, after=odd)) and not store.batches("a", Page(9, after=odd))
    assert store.files("a", Page(9), odd) == []


def test_pages_go_on_behind_one_of_the_same_tenant(store: BatchStore) -> None:
    for number in range(1, 5):
        store.add_file(file(number))
        store.add_file(file(number, "b"))
        store.put(batch(number))  # all made in the same instant
    assert [each.id for each in store.files("a", Page(2, "file-a3"))] == ["file-a2", "file-a1"]
    assert [each.id for each in store.files("a", Page(2, "file-a3", oldest_first=True))] == ["file-a4"]
    assert [each.id for each in store.batches("a", Page(9, "batch_a3"))] == ["batch_a2", "batch_a1"]
    assert store.files("a", Page(9, "file-b3")) == []
