"""Would an engine serve this adapter as it was trained? Runs every check that needs no engine.

vLLM 0.32 compares only the last part of a module's name with the base model, and accepts an adapter whose
full names match nothing: it then silently answers like the base model (`lora/lora_model.py`, and
`activate_adapter` in `lora/model_manager.py`). Missing halves and experts are assertions in its serving loop
(`lora/lora_weights.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from adapters.base_model import BaseModelShape, Module
from adapters.checkpoint import (
    FINGERPRINT_KEY,
    AdapterConfig,
    AdapterManifest,
    Checkpoint,
    describe,
    open_checkpoint,
    readable,
)
from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from adapters.patterns import parameter_of, split_name
from adapters.tensors import Tensor, scan, short


@dataclass(slots=True)
class _Pair:
    """The two matrices that change one module."""

    name: str  # as in the adapter, without the prefix
    halves: dict[str, Tensor] = field(default_factory=dict)  # "A": (rank, inputs), "B": (outputs, rank)

    @property
    def is_fused(self) -> bool:
        """Whether one pair holds all experts of a layer, as PEFT writes it for `target_parameters`."""
        return self.name.endswith((".experts", ".experts.base_layer"))

    @property
    def parameter(self) -> str:
        """The name that is matched with patterns and targets: for fused experts, the parameter's."""
        return parameter_of(self.name)


def verify(folder: Path, *, base: BaseModelShape | None, max_rank: int | None = None) -> AdapterManifest:
    """Check an adapter completely and describe it. Raises `AdapterError` for the first fault.

    `base` None leaves out the checks against the base model, with a warning in the manifest. Reads
    the weights once, in chunks of a few MiB.
    """
    with readable():
        checkpoint = open_checkpoint(folder)
        config = checkpoint.config
        if max_rank is not None and config.rank > max_rank:
            raise AdapterError(
                f"the adapter has rank {config.rank}, the base model takes at most {max_rank}; "
                "train with a lower rank, or have max_lora_rank of the base model raised"
            )
        pairs = _pairs(checkpoint.header.tensors)
        for pair in pairs:
            _check_halves(pair)
        if base is not None:
            _check_fingerprint(checkpoint, base)
            _check_against_base(pairs, base)
        for pair in pairs:
            _check_ranks(pair, config, base)
            _check_target(pair, config)
        result = scan(checkpoint.weights, checkpoint.header)
        scaled = [pair for pair in pairs if config.alpha_of(pair.parameter)]
        _check_effect(scaled, result.zeros)
        manifest = describe(checkpoint, result.sha256, tuple(_warnings(checkpoint, base)))
        is_effective = base is not None and not result.zeros and len(scaled) == len(pairs)
        return replace(manifest, is_effective=is_effective)


def _pairs(tensors: Iterable[Tensor]) -> list[_Pair]:
    """Put the halves together, by the name of the module they change."""
    pairs: dict[str, _Pair] = {}
    for tensor in tensors:
        name, half = _module_name(tensor.name)
        pair = pairs.setdefault(name, _Pair(name))
        if half in pair.halves:
            raise AdapterError(
                f"{WEIGHTS_FILE}: {short(tensor.name)} and {short(pair.halves[half].name)} "
                "are for the same module; save the adapter again"
            )
        pair.halves[half] = tensor
    return list(pairs.values())


def _module_name(tensor: str) -> tuple[str, str]:
    split = split_name(tensor)
    if split is not None:
        return split
    raise AdapterError(
        f"{WEIGHTS_FILE}: {short(tensor)} is not named as PEFT names it, which ends in "
        "`.lora_A.weight` or `.lora_B.weight`; save the adapter with save_pretrained"
    )


def _check_halves(pair: _Pair) -> None:
    for half, other in (("A", "B"), ("B", "A")):
        if half not in pair.halves:
            raise AdapterError(
                f"{WEIGHTS_FILE}: {short(pair.name)} has lora_{other} but no lora_{half}; "
                "save the adapter again"
            )


def _check_fingerprint(checkpoint: Checkpoint, base: BaseModelShape) -> None:
    named = checkpoint.fingerprint
    if named is not None and named != base.fingerprint:
        raise AdapterError(
            f"the adapter is for a base model with {FINGERPRINT_KEY} {short(named)}, that of {base.name} is "
            f"{base.fingerprint}; register it for the base model that it was trained on"
        )


def _check_against_base(pairs: Iterable[_Pair], base: BaseModelShape) -> None:
    """Refuse a module the base model does not have, or has in another shape."""
    adapted: dict[str, _Pair] = {}
    for pair in pairs:
        path = base.path(pair.name)
        module = base.modules.get(path)
        if module is None:
            raise AdapterError(f"{WEIGHTS_FILE}: {_why_unknown(pair.name, path, base)}")
        if path in adapted:
            raise AdapterError(
                f"{WEIGHTS_FILE}: {short(pair.name)} and {short(adapted[path].name)} are the same module of "
                f"{base.name}; save the adapter again"
            )
        adapted[path] = pair
        _check_shape(pair, module, base)
    _check_experts(adapted, base)


def _check_shape(pair: _Pair, module: Module, base: BaseModelShape) -> None:
    a, b = pair.halves["A"], pair.halves["B"]
    if module.is_embedding != a.name.endswith(".lora_embedding_A"):
        kind = "an embedding" if module.is_embedding else "no embedding"
        raise AdapterError(f"{WEIGHTS_FILE}: {short(a.name)} does not fit: {pair.name} is {kind}")
    if module.inputs is None or module.outputs is None:
        return
    given, wanted = (a.shape[1], b.shape[0]), (module.inputs, module.outputs)
    if given == wanted or (module.experts and given == wanted[::-1]):  # which side is which differs by model
        return
    raise AdapterError(
        f"{WEIGHTS_FILE}: {short(pair.name)} has {given[0]} inputs and {given[1]} outputs, "
        f"in {base.name} it has {wanted[0]} and {wanted[1]}; the adapter was trained on another base model"
    )


def _check_experts(adapted: Mapping[str, _Pair], base: BaseModelShape) -> None:
    """Refuse a layer of which only some experts or projections are changed, or with different ranks.

    vLLM stacks a layer's experts and asserts that each has all its projections (`pack_moe` in
    `lora/lora_weights.py`, `_stack_moe_lora_weights` in `lora/model_manager.py`).
    """
    layers = {path[: path.index(".experts") + len(".experts")] for path in adapted if ".experts" in path}
    needed: dict[str, list[str]] = defaultdict(list)
    for path in base.modules:
        layer, found, _ = path.partition(".experts")
        if found:
            needed[layer + found].append(path)
    for layer in sorted(layers):
        ranks: dict[str, int] = {}
        for path in needed[layer]:
            if path not in adapted:
                raise AdapterError(
                    f"{WEIGHTS_FILE}: {path} is missing; vLLM wants all experts of a layer adapted, or none"
                )
            projection = path.rpartition(".")[2]
            rank = adapted[path].halves["A"].shape[0]
            if ranks.setdefault(projection, rank) != rank:
                raise AdapterError(
                    f"{WEIGHTS_FILE}: {layer} has experts of rank {ranks[projection]} and of rank {rank}; "
                    "vLLM wants one rank for all experts of a layer"
                )


def _check_ranks(pair: _Pair, config: AdapterConfig, base: BaseModelShape | None) -> None:
    """Compare a module's rank with the config's, by which vLLM scales the weights."""
    a, b = pair.halves["A"], pair.halves["B"]
    rank = config.rank_of(pair.parameter)
    if pair.is_fused:
        module = base.modules.get(base.path(pair.name)) if base is not None else None
        if a.shape[0] % rank or (module is not None and a.shape[0] != rank * module.experts):
            raise AdapterError(
                f"{WEIGHTS_FILE}: {short(a.name)} has {a.shape[0]} rows, "
                f"which is not rank {rank} for each expert; save both files together"
            )
    elif a.shape[0] != rank:
        raise AdapterError(
            f"{WEIGHTS_FILE}: {short(a.name)} has rank {a.shape[0]}, {CONFIG_FILE} says {rank}; "
            "save both together"
        )
    if b.shape[1] != a.shape[0]:
        raise AdapterError(
            f"{WEIGHTS_FILE}: {short(b.name)} has rank {b.shape[1]}, its lora_A has {a.shape[0]}; "
            "save the adapter again"
        )


def _check_target(pair: _Pair, config: AdapterConfig) -> None:
    """Refuse a module that the training did not name.

    A pattern is not tried: a client's pattern may never end, and vLLM reads none.
    """
    if config.target_pattern or pair.is_fused:
        return
    parts = pair.name.split(".")
    if config.target_modules.isdisjoint(".".join(parts[start:]) for start in range(len(parts))):
        raise AdapterError(
            f"{WEIGHTS_FILE}: {short(pair.name)} is not among the target_modules of {CONFIG_FILE}; "
            "save both together"
        )


def _check_effect(scaled: Sequence[_Pair], zeros: frozenset[str]) -> None:
    """Refuse an adapter that changes nothing; `scaled` are the modules whose alpha is not 0."""
    if not scaled:
        raise AdapterError(
            f"{CONFIG_FILE}: lora_alpha is 0 for every module, so that the adapter changes nothing"
        )
    if not any(zeros.isdisjoint(tensor.name for tensor in pair.halves.values()) for pair in scaled):
        raise AdapterError(
            f"{WEIGHTS_FILE}: every module has a lora_A or lora_B of zeros, so that the adapter answers like "
            "the base model; it was not trained, or was saved before the training"
        )


def _warnings(checkpoint: Checkpoint, base: BaseModelShape | None) -> Iterable[str]:
    if base is None:
        yield "names and shapes were not compared with the base model, whose files are not here"
        return
    named = (checkpoint.config.base_model_name_or_path or "").rstrip("/").rpartition("/")[2]
    if named and named.lower() != base.name.lower():
        yield f"trained on {short(named)}, as it says, and checked against {base.name}"


def _why_unknown(name: str, path: str, base: BaseModelShape) -> str:
    """Explain an unknown module's name, and suggest the nearest one."""
    if path in base.unadaptable:
        return f"{short(name)} cannot be adapted: {base.unadaptable[path]}; train without it"
    if name.endswith((".experts", ".experts.base_layer")):
        return f"{short(name)} holds all experts at once; {base.architecture} wants them one by one"
    nearest = _nearest(path, base.modules)
    hint = f"did you mean {nearest}?" if nearest else "the adapter was trained on another base model"
    return f"{base.name} has no module {short(name)}; {hint}"


def _nearest(path: str, known: Iterable[str]) -> str | None:
    """Return the path whose end is most like this one's."""
    parts = path.split(".")[-16:]
    paths = list(known)
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        alike = [known for known in paths if known == ending or known.endswith(f".{ending}")]
        if alike:
            return max(alike, key=lambda known: (len(set(known.split(".")) & set(parts)), -len(known)))
    last = get_close_matches(parts[-1][:64], {known.rpartition(".")[2] for known in paths}, n=1)
    return _nearest(".".join([*parts[:-1], last[0]]), paths) if last and last[0] != parts[-1] else None
