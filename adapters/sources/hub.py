"""Reads files from the Hugging Face Hub through its fsspec file system, all at one commit."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from adapters.kind import Kind
from adapters.sources.address import Address
from adapters.sources.quiet import hide_queries
from adapters.sources.remote import PIECE_BYTES, Changed, Refused, RemoteFile, Unanswered

TIMEOUT_S = 30.0  # of resolving a revision to its commit
_LATER = frozenset({408, 425, 429})
_NOT_ON_HUB = "check repository and revision, and that the gateway's HF_TOKEN may read a private one"


class HubRepo:
    """A model repository of the Hugging Face Hub, at one commit."""

    def __init__(self, address: Address, kind: Kind) -> None:
        self._kind = kind
        self._repo = address.path
        self._revision = address.revision
        self._fs: Any = None
        self._root = ""
        self._names: list[str] = []

    def names(self) -> Collection[str]:
        """Name the files at the commit that the revision named first."""
        with self._failures_named():
            self._files()
        return [name for name in self._names if "/" not in name]

    def describe(self, name: str) -> RemoteFile:
        """Ask for a file's size and hash at the commit that the revision named first."""
        with self._failures_named():
            info = self._files().info(f"{self._root}/{name}")
        if info["type"] != "file":
            raise Refused(f"there is no {name}; {self._kind.layout}")
        sha256 = info["lfs"].sha256 if info.get("lfs") else None
        return RemoteFile(name, int(info["size"]), str(info["blob_id"]), sha256)

    def read(self, file: RemoteFile, start: int) -> Generator[bytes]:
        """Read a file from `start` on."""
        size = file.size_bytes or 0
        with self._failures_named():
            reader = self._files().open(
                f"{self._root}/{file.name}", "rb", block_size=PIECE_BYTES, cache_type="none", size=size
            )
        with reader:
            for begin in range(start, size, PIECE_BYTES):
                want = min(PIECE_BYTES, size - begin)
                with self._failures_named():
                    reader.seek(begin)
                    piece = reader.read(want)
                if len(piece) != want:
                    raise Changed("it sent another size than was asked for")
                yield piece

    def close(self) -> None:
        """Nothing to do: the Hub's client keeps one pool of connections for the process."""

    def _files(self) -> Any:
        """Open the repository at the commit its revision names now: a branch may move between reads."""
        if self._fs is None:
            from huggingface_hub import HfApi, HfFileSystem

            hide_queries()
            endpoint = os.environ.get("HF_ENDPOINT") or None
            info = HfApi(endpoint=endpoint).model_info(self._repo, revision=self._revision, timeout=TIMEOUT_S)
            self._root = f"{self._repo}@{info.sha}"
            self._names = [file.rfilename for file in info.siblings or []]
            self._fs = HfFileSystem(endpoint=endpoint, skip_instance_cache=True)
        return self._fs

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        import httpx2
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        try:
            yield
        except GatedRepoError:
            raise Refused(
                "the repository is gated; accept its terms, and set HF_TOKEN for the gateway"
            ) from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status >= 500 or status in _LATER:
                raise Unanswered(f"it answers with status {status}") from None
            raise Refused(f"it answers with status {status}; {_NOT_ON_HUB}") from None
        except FileNotFoundError:
            reason = self._kind.why_not(self._names) if self._names else None
            raise Refused(reason or f"a file is missing; {self._kind.layout}") from None
        except (OSError, httpx2.HTTPError) as error:
            raise Unanswered(f"it does not answer ({type(error).__name__})") from None
