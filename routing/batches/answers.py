"""How is a batch described? As OpenAI does. Pure."""

from __future__ import annotations

from typing import Any

from routing.batches.values import WINDOW, Batch, BatchStatus


def batch_answer(batch: Batch) -> dict[str, Any]:
    """Describe a batch."""
    counts = batch.counts
    times = {f"{status.value}_at": _time(batch.at_s.get(status.value)) for status in BatchStatus}
    del times["validating_at"]
    mistakes = [
        {"code": each.code, "message": each.message, "param": each.param, "line": each.line}
        for each in batch.mistakes
    ]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint.value,
        "errors": {"object": "list", "data": mistakes} if mistakes else None,
        "input_file_id": batch.input_file,
        "completion_window": WINDOW,
        "status": batch.status.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_s),
        "expires_at": int(batch.expires_s),
        **times,
        "request_counts": {
            "total": counts.total,
            "completed": counts.completed,
            "failed": counts.failed,
        },
        "metadata": None if batch.metadata is None else dict(batch.metadata),
    }


def _time(at_s: float | None) -> int | None:
    return None if at_s is None else int(at_s)
