"""The parts that batches need, built for one fleet."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.batch_settings import BatchSettings
from fleet.current import CurrentFleet
from routing.batches.desk import Desk
from routing.batches.runner import LedgerRows, LineCaller, Runner
from routing.batches.sealing import KEY_BYTES
from routing.batches.store import BatchStore
from routing.batches.vault import Vault


@dataclass(frozen=True, slots=True)
class Batching:
    """Files and batches of one gateway."""

    desk: Desk
    runner: Runner

    @classmethod
    def of(cls, fleet: CurrentFleet, caller: LineCaller, ledger: LedgerRows) -> Batching:
        """Build them; nothing is opened yet. Raises `ValueError` where the key of files is none."""
        state, settings = fleet.now.state, fleet.now.gateway.batches
        store = BatchStore(state.database_url)
        key = key_of(settings, os.environ)
        vault = Vault(Path(state.folder) / "batches", address=settings.folder, key=key)
        runner = Runner(
            store,
            vault,
            caller,
            ledger,
            max_line_bytes=lambda: fleet.now.gateway.max_body_bytes,
            keep_s=lambda: fleet.now.gateway.batches.keep_s,
        )
        return cls(Desk(store, vault, runner, lambda: fleet.now.gateway.batches), runner)


def key_of(settings: BatchSettings, environ: Mapping[str, str]) -> bytes | None:
    """Return the key that files are sealed with; None: they are not. Raises `ValueError`."""
    variable = settings.key_variable
    if variable is None:
        return None
    try:
        key = base64.b64decode(environ.get(variable, ""), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"gateway.batches.key: the variable {variable} does not hold {KEY_BYTES} bytes in base64; make "
            f"such a key with `openssl rand -base64 {KEY_BYTES}`"
        )
    return key
