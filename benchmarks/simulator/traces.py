"""What do the public traces and measurements say? Reads them from a folder; keeps none of them.

`az23_conv.csv`, `az23_code.csv`: Azure LLM inference traces 2023 (Azure/AzurePublicDataset).
`llama31_real.txt`, `metrics_data_adapter_rates.csv`: FerranAgulloLopez/GPULLMAdapterOptimization, one 8B
model on one GPU under vLLM 0.8.5, `--max-num-seqs 2048`, no prefix caching.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

MEASURED_RUNS = "llama31_real.txt"
ADAPTER_RUNS = "metrics_data_adapter_rates.csv"
COLUMNS = 11  # of a measured run that has figures; runs that did not fit the GPU have none


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One hour of one engine whose adapters have unequal rates; only completed requests count."""

    rank: int
    rates_per_s: tuple[float, ...]  # each that of an equal part of the adapters
    slots: int
    adapters: int
    completed: int
    duration_s: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float  # of completions
    ttft_s: float  # mean
    ttft_p99_s: float
    itl_ms: float  # mean


@dataclass(frozen=True, slots=True)
class AdapterRun:
    """Ten minutes of one engine whose adapters have equal rates and whose requests are all alike."""

    slots: int
    adapters: int
    rank: int
    rate_per_s: float  # of each adapter
    tokens_per_s: float  # of completions
    completed: int
    steps: int
    duration_s: float
    step_adapters: float  # mean number of adapters in a step
    waiting: float  # mean length of the queue
    loads: float  # into slots
    itl_ms: float  # mean


def measured_runs(folder: Path) -> list[MeasuredRun]:
    """Read the hour-long runs that have figures. Raises OSError, and ValueError on a line that is no run."""
    lines = [line.split() for line in (folder / MEASURED_RUNS).read_text().splitlines() if line.strip()]
    return [_measured(words) for words in lines if len(words) == COLUMNS]


def _measured(words: list[str]) -> MeasuredRun:
    """Read `rank_R_rates_A_B_C _SLOTS_ADAPTERS_R_ POOL COMPLETED SECONDS IN OUT TOK/S TTFT P99 ITL`."""
    _, rank, rates, *each = words[0].split("_")
    slots, adapters, _ = words[1].strip("_").split("_")
    if rates != "rates":
        raise ValueError(f"{MEASURED_RUNS}: {words[0]!r} is not the name of a run")
    return MeasuredRun(
        rank=int(rank),
        rates_per_s=tuple(float(rate) for rate in each),
        slots=int(slots),
        adapters=int(adapters),
        completed=int(words[3]),
        duration_s=float(words[4]),
        prompt_tokens=int(words[5]),
        completion_tokens=int(words[6]),
        tokens_per_s=float(words[7]),
        ttft_s=float(words[8]) / 1000,
        ttft_p99_s=float(words[9]) / 1000,
        itl_ms=float(words[10]),
    )


def adapter_runs(folder: Path) -> list[AdapterRun]:
    """Read the ten-minute runs. Raises OSError, KeyError on a missing column, ValueError on no number."""
    with (folder / ADAPTER_RUNS).open(newline="") as file:
        return [
            AdapterRun(
                slots=int(row["gpu_loras"]),
                adapters=int(row["cpu_loras"]),
                rank=int(row["rank"]),
                rate_per_s=float(row["rate"]),
                tokens_per_s=float(row["output_throughput"]),
                completed=int(row["completed_requests"]),
                steps=int(row["steps"]),
                duration_s=float(row["duration"]),
                step_adapters=float(row["mean_loras_by_batch"]),
                waiting=float(row["avg_waiting_queue"]),
                loads=float(row["max_lora_loads_from_memory"]),
                itl_ms=float(row["mean_itl_ms"]),
            )
            for row in csv.DictReader(file)
        ]


def lengths(folder: Path, name: str) -> list[tuple[int, int]]:
    """(prompt, completion) tokens of each request of an Azure trace. Raises OSError, KeyError, ValueError."""
    with (folder / f"az23_{name}.csv").open(newline="") as file:
        rows = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    return [(max(1, prompt), max(1, completion)) for prompt, completion in rows]
