"""Fifty fine-tunes from public traces: writes a fleet, its models and its requests for `tenantry plan`.

    python -m benchmarks.fine_tunes --traces FOLDER --out FOLDER

The folder of traces has `az23_conv.csv` and `az23_code.csv`, the Azure LLM inference traces of 2023. No
public trace names adapters. So a part of the conversations is dealt to 40 adapters of one base model, whose
rates are those of public runs of vLLM with LoRA (0.1, 0.05 and 0.025 requests/s); a part of the code trace to
ten whole models: seven of one shape, one of them a tenant's that shares nothing, and three of others.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

ADAPTERS, RATES_PER_S = 40, (0.1, 0.05, 0.025)
WHOLE_PER_S = 0.02
BASE = {"parameters": 8.03e9, "kv_kib_per_token": 128, "max_model_len": 8192, "slot_mib_per_rank": 5.2}
OTHERS = {
    "fourteen-b": {"parameters": 14.8e9, "kv_kib_per_token": 192, "shape": "fourteen-b"},
    "seven-b": {"parameters": 7.25e9, "kv_kib_per_token": 128, "shape": "seven-b"},
    "three-b": {"parameters": 3.09e9, "kv_kib_per_token": 36, "shape": "three-b"},
}
WHOLE = [f"whole-{number}" for number in range(1, 8)]
DEDICATED, QUICK = WHOLE[6], WHOLE[0]  # a tenant that shares nothing; a model with a tight objective
OBJECTIVE_S = 10.0

Request = tuple[float, str, int, int]  # second, model, prompt and completion tokens
app = typer.Typer(add_completion=False)


def traced(path: Path) -> Iterator[tuple[float, int, int]]:
    """(seconds from the first, prompt tokens, completion tokens) of an Azure trace."""
    first: datetime | None = None
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or at
            yield (at - first).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"])


def dealt(path: Path, rates: Sequence[tuple[str, float]], chance: random.Random) -> list[Request]:
    """Deal so many requests of a trace to models as their rates ask for; the others are left out."""
    requests = list(traced(path))
    length_s = requests[-1][0]
    kept = sum(rate for _, rate in rates) * length_s / len(requests)
    if kept > 1:
        raise typer.BadParameter(f"{path} has too few requests for these rates")
    names, weights = [name for name, _ in rates], [rate for _, rate in rates]
    return [
        (at_s, chance.choices(names, weights)[0], prompt, completion)
        for at_s, prompt, completion in requests
        if chance.random() < kept
    ]


def fleet() -> dict[str, Any]:
    """The fleet of today: adapters share an engine, and each whole model has its own."""
    whole = [*WHOLE, *OTHERS]
    names = [f"tenant-{number:02}" for number in range(1, ADAPTERS + 1)]
    tenants = {name: _tenant(name, f"adapter-{name[-2:]}") for name in names}
    tenants |= {f"owner-of-{model}": _tenant(f"owner-of-{model}", model) for model in whole}
    tenants[f"owner-of-{DEDICATED}"]["isolation"] = "dedicated"
    pools: dict[str, Any] = {
        "adapters": {
            "strategy": "multi-lora",
            "base_models": ["base"],
            "tenants": names,
            "slo": {"ttft_s": 2.0},
        }
    }
    for model in whole:
        objective = 1.0 if model == QUICK else OBJECTIVE_S
        pools[model] = {
            "strategy": "replica-per-model",
            "base_models": [model],
            "tenants": [f"owner-of-{model}"],
            "slo": {"ttft_s": objective},
        }
    return {
        "base_models": {
            "base": {"source": "example/base", "max_loras": 16, "max_model_len": 8192},
            **{model: {"source": f"example/{model}", "max_model_len": 8192} for model in whole},
        },
        "adapters": {
            f"adapter-{name[-2:]}": {"source": f"https://example.com/{name}.tar.gz", "base_model": "base"}
            for name in names
        },
        "tenants": tenants,
        "pools": pools,
        "gateway": {"operator_keys": [{"env": "OPERATOR_API_KEY"}]},
    }


def _tenant(name: str, model: str) -> dict[str, Any]:
    return {"api_keys": [{"env": name.upper().replace("-", "_")}], "models": {"chat": model}}


def models() -> dict[str, Any]:
    """What files of the models would say."""
    eight = [{"name": name, "shape": "eight-b", **BASE} for name in ("base", *WHOLE)]
    others = [{"name": name, "max_model_len": 8192, **facts} for name, facts in OTHERS.items()]
    adapters = [{"name": f"adapter-{n:02}", "base": "base", "rank": 16} for n in range(1, ADAPTERS + 1)]
    return {"models": [*eight, *others, *adapters]}


@app.command()
def main(
    traces: Annotated[Path, typer.Option(help="Folder of the Azure traces.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")],
    seed: int = 1,
) -> None:
    """Write fleet.yaml, models.yaml and requests.csv."""
    chance = random.Random(seed)
    rates = [(f"adapter-{n:02}", RATES_PER_S[n % len(RATES_PER_S)]) for n in range(1, ADAPTERS + 1)]
    requests = dealt(traces / "az23_conv.csv", rates, chance)
    requests += dealt(traces / "az23_code.csv", [(name, WHOLE_PER_S) for name in (*WHOLE, *OTHERS)], chance)
    out.mkdir(parents=True, exist_ok=True)
    (out / "fleet.yaml").write_text(yaml.safe_dump(fleet(), sort_keys=False))
    (out / "models.yaml").write_text(yaml.safe_dump(models(), sort_keys=False))
    with (out / "requests.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time", "model", "prompt", "completion"))
        writer.writerows(sorted(requests))
    print(f"{len(requests)} requests for {len({model for _, model, _, _ in requests})} models in {out}")


if __name__ == "__main__":
    app()
