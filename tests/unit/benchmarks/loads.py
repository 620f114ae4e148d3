"""What the load generator could have counted, for tests of what is made of it."""

from __future__ import annotations

from benchmarks.results import LoadResult, Times

TIMES = Times(count=1, p50=2, p99=4)
NO_TIMES = Times(count=0, p50=0, p99=0)


def load_result(
    ok: int = 100, *, failed: int = 0, chunks: int = 0, tokens: int = 64, times: Times = TIMES
) -> LoadResult:
    """Two seconds in which `ok` requests were answered with `tokens` each, and `chunks` in all."""
    return LoadResult(
        seconds=2.0,
        cpu_s=0.1,
        sent=2 * ok + failed,
        requests=ok + failed,
        ok=ok,
        connect_errors=0,
        broken=0,
        bad_content=0,
        timeouts=0,
        opened=32,
        events=chunks,
        chunks=chunks,
        completion_tokens=tokens * ok,
        done_requests=ok,
        done_tokens=tokens * ok,
        by_status={200: ok},
        latency_ms=times,
        first_chunk_ms=times if chunks else NO_TIMES,
        gap_ms=NO_TIMES,
        first_error="503: busy" if failed else "",
    )
