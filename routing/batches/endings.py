"""Writes the files that come out of a batch: its answers, and its errors. Blocks.

Their ids follow from the batch's. So a gateway that is killed while it writes them writes them again in the
same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from routing.batches import lines
from routing.batches.run import BatchRun
from routing.batches.values import OUTPUT_PURPOSE, Batch, BatchStatus, Counts, Line, StoredFile
from routing.batches.vault import FileWriter, Vault

_EXPIRED = "batch_expired", "This request could not be answered before the batch's window was over."


class _Ended(NamedTuple):
    batch: Batch
    files: list[StoredFile]


def write_files(
    run: BatchRun,
    vault: Vault,
    unanswered: Callable[[set[int]], Iterator[Line]],
    keep_until_s: float,
    now_s: float,
) -> _Ended:
    """Write both files of a batch of which nothing runs; one without lines is not there.

    Returns the batch with their ids and with its counts. Lines that an expired batch has left are errors;
    `unanswered` gives all lines but some. Raises `OSError`, `DamagedFile`.
    """
    batch, done, counts = run.batch, set[int](), Counts(run.batch.counts.total)
    output, errors = output_id(batch, "output"), output_id(batch, "error")
    with vault.write(output) as answers, vault.write(errors) as failures:
        for outcome in run.journal.read():
            done.add(outcome.number)
            counts = counts.plus(ok=outcome.ok)
            (answers if outcome.ok else failures).write(outcome.line + b"\n")
        if batch.ending is BatchStatus.EXPIRED:
            for line in unanswered(done):
                counts = counts.plus(ok=False)
                failures.write(lines.unanswered(batch, line, *_EXPIRED) + b"\n")
        files = [
            _finished(writer, StoredFile(name, batch.account, OUTPUT_PURPOSE, told, 0, now_s, keep_until_s))
            for writer, name, told in (
                (answers, output, f"{batch.id}_output.jsonl"),
                (failures, errors, f"{batch.id}_error.jsonl"),
            )
            if writer.size_bytes
        ]
    kept = {file.id for file in files}
    return _Ended(
        replace(
            batch,
            counts=counts,
            output_file=output if output in kept else None,
            error_file=errors if errors in kept else None,
        ),
        files,
    )


def output_id(batch: Batch, kind: str) -> str:
    """Return the id of a file that comes out of a batch: `output` or `error`."""
    return f"file-{hashlib.sha256(f'{batch.id}/{kind}'.encode()).hexdigest()[:32]}"


def _finished(writer: FileWriter, file: StoredFile) -> StoredFile:
    writer.finish()
    return replace(file, size_bytes=writer.size_bytes)
