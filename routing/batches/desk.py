"""What may a tenant do with its files and batches? Bounds on both, and the one way to change them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fleet.batch_settings import BatchSettings
from routing.batches.answers import batch_answer
from routing.batches.runner import Runner
from routing.batches.sealing import DamagedFile
from routing.batches.store import BatchStore, Page
from routing.batches.values import (
    ENDED,
    ENDPOINTS,
    INPUT_PURPOSE,
    WINDOW,
    WINDOW_S,
    Batch,
    BatchStatus,
    StoredFile,
)
from routing.batches.vault import FileWriter, Vault
from routing.errors import (
    CapReached,
    Conflict,
    InvalidRequest,
    NotFound,
    RequestError,
    Unavailable,
    still_starting,
)

T = TypeVar("T")
log = logging.getLogger("tenantry.batches")
MOST_UPLOADS = 2  # of one tenant at once
RETRY_AFTER_UPLOAD_S, RETRY_AFTER_BATCH_S, RETRY_AFTER_STORAGE_S = 5.0, 60.0, 5.0
RETRY_AFTER_ELSEWHERE_S = 1.0  # the next request may come to the right gateway


class Desk:
    """Files and batches of all tenants, each by its account. Every call may raise `StateUnavailable`."""

    def __init__(
        self,
        store: BatchStore,
        vault: Vault,
        runner: Runner,
        settings: Callable[[], BatchSettings],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` gives Unix time."""
        self._store, self._vault, self._runner = store, vault, runner
        self._settings, self._now = settings, now
        self._uploads: Counter[str] = Counter()  # that run, by account
        # Held from counting what a tenant has to adding one more; by what it is and account.
        self._counting: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # -- files ---------------------------------------------------------------------------------------------

    @property
    def max_file_bytes(self) -> int:
        """The largest file."""
        return self._settings().max_file_bytes

    @asynccontextmanager
    async def upload(self, account: str) -> AsyncIterator[FileWriter]:
        """Begin a file; `keep` must follow before the end. Raises `CapReached`, `InvalidRequest`."""
        self._require_open()
        if self._uploads[account] >= MOST_UPLOADS:
            raise CapReached(
                f"{MOST_UPLOADS} uploads of yours are running already.",
                code="max_uploads",
                retry_after_s=RETRY_AFTER_UPLOAD_S,
            )
        self._uploads[account] += 1
        try:
            await self._require_room(account, 0)
            with await self._stored(self._vault.write, f"file-{secrets.token_hex(16)}") as writer:
                yield writer
        finally:
            self._uploads[account] -= 1
            if not self._uploads[account]:
                del self._uploads[account]

    async def write(self, call: Callable[[], object]) -> None:
        """Write to a file in a thread; also when cancelled, it returns once that has ended.

        Raises `Unavailable` where the disk takes no more.
        """
        writing = asyncio.ensure_future(self._stored(call))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.gather(writing, return_exceptions=True)
            raise

    async def keep(self, account: str, writer: FileWriter, filename: str, keep_s: float | None) -> StoredFile:
        """Keep an uploaded file, for so long or as long as the service keeps files. Raises as `upload`."""
        async with self._one_more("file", account):
            await self._require_room(account, writer.size_bytes)
            now_s, longest_s, size_bytes = self._now(), self._settings().keep_s, writer.size_bytes
            expires_s = now_s + min(longest_s, keep_s or longest_s)
            await self.write(writer.finish)
            file = StoredFile(writer.name, account, INPUT_PURPOSE, filename, size_bytes, now_s, expires_s)
            await asyncio.to_thread(self._store.add_file, file)
        return file

    async def files(self, account: str, page: Page, purpose: str | None) -> list[StoredFile]:
        """List a tenant's files, one more than the page has where there are more."""
        return await asyncio.to_thread(self._store.files, account, page, purpose)

    async def file(self, account: str, file_id: str) -> StoredFile:
        """Return a file. Raises `NotFound`."""
        file = await asyncio.to_thread(self._store.file, account, file_id)
        if file is None:
            raise NotFound("There is no such file.", code="file_not_found", param="file_id")
        return file

    async def content(self, file: StoredFile) -> AsyncIterator[bytes]:
        """Give what is in a file. Raises `Unavailable`, and `RequestError` where it is damaged."""
        pieces: Iterator[bytes] = self._vault.read(file.id, file.size_bytes)
        while (piece := await self._stored(next, pieces, None)) is not None:
            yield piece

    async def delete(self, account: str, file_id: str) -> None:
        """Delete a file. Raises `NotFound`, and `Conflict` while a batch reads it."""
        file = await self.file(account, file_id)
        if await asyncio.to_thread(self._store.uses, account, file.id):
            raise Conflict("A batch that has not ended reads this file.", code="file_in_use")
        await asyncio.to_thread(self._store.remove_file, account, file.id)
        await self._stored(self._vault.remove, file.id)

    # -- batches -------------------------------------------------------------------------------------------

    async def create(
        self,
        account: str,
        key: str,
        *,
        file_id: str,
        endpoint: str,
        metadata: Mapping[str, str] | None,
        keep_s: float | None = None,
    ) -> Batch:
        """Begin a batch; `keep_s` is how long what comes out of it is kept.

        Raises `InvalidRequest`, `NotFound`, `CapReached`.
        """
        self._require_open()
        if endpoint not in ENDPOINTS:
            raise InvalidRequest(
                f"`endpoint` is one of {', '.join(ENDPOINTS)}.", param="endpoint", code="invalid_value"
            )
        file = await self.file(account, file_id)
        if file.purpose != INPUT_PURPOSE:
            raise InvalidRequest(
                "The file's purpose is not `batch`.", param="input_file_id", code="invalid_value"
            )
        async with self._one_more("batch", account):
            held = await asyncio.to_thread(self._store.held, account)
            if held.unfinished >= self._settings().max_unfinished:
                raise CapReached(
                    f"{held.unfinished} batches of yours have not ended; wait for one, or cancel one.",
                    code="max_batches",
                    retry_after_s=RETRY_AFTER_BATCH_S,
                )
            now_s = self._now()
            batch = Batch(
                id=f"batch_{secrets.token_hex(16)}",
                account=account,
                key=key,
                home=self._runner.home,
                endpoint=ENDPOINTS[endpoint],
                input_file=file.id,
                created_s=now_s,
                expires_s=now_s + WINDOW_S,
                metadata=metadata,
                keep_s=keep_s,
            )
            await asyncio.to_thread(self._store.put, batch)
        self._runner.add(batch)
        return batch

    async def batch(self, account: str, batch_id: str) -> Batch:
        """Return a batch as it is now. Raises `NotFound`."""
        batch = await asyncio.to_thread(self._store.batch, account, batch_id)
        if batch is None:
            raise NotFound("There is no such batch.", code="batch_not_found", param="batch_id")
        return self._runner.latest(batch)

    async def batches(self, account: str | None, page: Page) -> list[Batch]:
        """List a tenant's batches, or all; one more than the page has where there are more."""
        found = await asyncio.to_thread(self._store.batches, account, page)
        return [self._runner.latest(batch) for batch in found]

    async def progress(self, account: str | None, limit: int) -> list[dict[str, Any]]:
        """Describe a tenant's batches, or all, the newest first, each with its `tenant`."""
        found = await self.batches(account, Page(limit))
        return [{**batch_answer(batch), "tenant": batch.account} for batch in found[:limit]]

    async def cancel(self, account: str, batch_id: str) -> Batch:
        """Begin nothing more of a batch.

        Raises `NotFound`, `Conflict` where it has ended, and `Unavailable` where it does not run here.
        """
        batch = await self.batch(account, batch_id)
        if not self._runner.runs(batch):
            batch = await self.batch(account, batch_id)  # it may have ended while it was read
        if batch.status in ENDED or batch.status is BatchStatus.FINALIZING:
            raise Conflict(f"The batch is {batch.status} already.", code="batch_ended")
        if self._runner.runs(batch):
            return await self._runner.cancel(batch)
        if batch.home == self._runner.home or not self._runner.home:
            raise still_starting(RETRY_AFTER_STORAGE_S)
        raise Unavailable(
            "Another gateway runs this batch.", code="batch_elsewhere", retry_after_s=RETRY_AFTER_ELSEWHERE_S
        )

    # -- help ----------------------------------------------------------------------------------------------

    def _one_more(self, what: str, account: str) -> asyncio.Lock:
        """Return what is held while a tenant gets one more: requests that come together are counted too."""
        return self._counting.setdefault((what, account), asyncio.Lock())

    def _require_open(self) -> None:
        if not self._runner.home:
            raise still_starting(RETRY_AFTER_STORAGE_S)

    async def _require_room(self, account: str, size_bytes: int) -> None:
        """Raise `InvalidRequest` where a tenant has too many files, or would have too many bytes."""
        settings, held = self._settings(), await asyncio.to_thread(self._store.held, account)
        if held.files >= settings.max_files:
            raise InvalidRequest(
                f"You have {held.files} files, the most this service keeps; delete some.", code="max_files"
            )
        if held.size_bytes + size_bytes > settings.max_tenant_bytes:
            raise InvalidRequest(
                f"Your files would have more than {settings.max_tenant_bytes} bytes together, the most this "
                "service keeps; delete some.",
                code="max_file_storage",
            )

    async def _stored(self, call: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.to_thread(call, *args)
        except DamagedFile as error:
            log.error("a file cannot be read: %s", error)
            raise RequestError("The file cannot be read any more.", code="file_unreadable") from None
        except OSError as error:
            log.error("a file cannot be read or written: %s", error.strerror or error)
            raise Unavailable(
                "The gateway's storage does not answer.",
                code="storage_unavailable",
                retry_after_s=RETRY_AFTER_STORAGE_S,
            ) from None


def check_window(window: object) -> None:
    """Raise `InvalidRequest` for another window than the one there is."""
    if window != WINDOW:
        raise InvalidRequest(
            f"`completion_window` is `{WINDOW}`.", param="completion_window", code="invalid_value"
        )
