"""Could a whole fine-tune be an adapter of its base? Takes their difference apart; writes the adapter.

1. Both must have the same tensors in the same shapes, and the same configuration.
2. What an adapter cannot change (norms, biases, embeddings) must be the same, but for hardly anything.
3. Of each matrix the difference must be of low rank: as many singular values as rise above what rounding
   alone lets expect, or else as many as keep 99 % of it.
4. What is written passes the checks of every adapter before it has its name.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adapters.base_model import BaseModelShape, folder_of, read_shape
from adapters.checkpoint import FINGERPRINT_KEY, AdapterManifest
from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, WEIGHTS_FILE
from adapters.tensors import Tensor, short
from adapters.verify import verify
from engines.switching.reading import ModelUnreadable, read_contents
from engines.switching.shape import Contents, why_other_shape
from planning.reading.weights import Change, Weights, change_of, differences, write_tensors
from planning.spectrum import Matrix, Spectrum, spectrum

KEEP = 0.99
MAX_RANK = 64
LEFT_OUT = 1e-3  # relative change up to which what an adapter cannot change is left out
HOPELESS = (
    0.8  # part of a matrix's change: where the largest rank keeps less, the other matrices are not tried
)
_PREFIX = "base_model.model."
_FLOATS = frozenset({"F32", "F16", "BF16"})
Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class Layer:
    """What the difference of one matrix is like."""

    name: str  # of the module
    change: float  # its size by that of the matrix
    rank: int | None  # that the adapter needs here; None: more than was tried
    rank_keeping: int | None  # that keeps KEEP of it
    kept: float  # part of it that the rank keeps; or the largest one that was tried


@dataclass(frozen=True, slots=True)
class Extraction:
    """What became of the question."""

    why_not: str  # why it can be no adapter; "": it can
    rank: int  # of the adapter
    layers: tuple[Layer, ...]  # matrices that differ
    kept: float  # least part of a matrix's change that the adapter keeps
    notes: tuple[str, ...] = ()
    manifest: AdapterManifest | None = None  # of what was written


def extract(
    tuned: str,
    base: str,
    *,
    write: Path | None = None,
    max_rank: int = MAX_RANK,
    keep: float = KEEP,
    progress: Progress = lambda done, of: None,
) -> Extraction:
    """Find out whether a whole model is an adapter of a base; write it where `write` names a new folder.

    Models are folders, or hub ids that are on this machine. Reads each several times, in blocks of 64 MiB.
    Raises `AdapterError` where a model cannot be read, and where the two are of different shapes.
    """
    ours, theirs = _folder(tuned), _folder(base)
    if write is not None and write.exists():
        raise AdapterError(f"{write} is there already; name a folder that is not")
    notes = _same_shape(ours, theirs)
    with _named(theirs):
        shape = read_shape(theirs)
    try:
        with _named(ours):
            one = Weights(ours)
        with _named(theirs):
            other = Weights(theirs)
        with one, other:
            search = _Search(one, other, shape, max_rank, keep, progress)
            found = search.run()
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else "a file"
        raise AdapterError(f"{name} cannot be read: {error.strerror or error}") from error
    found = replace(found, notes=(*notes, *found.notes))
    if found.why_not or write is None:
        return found
    return replace(found, manifest=_write(write, search, found.rank, shape, base))


class _Search:
    """Goes over all tensors of two models of one shape."""

    def __init__(
        self,
        tuned: Weights,
        base: Weights,
        shape: BaseModelShape,
        max_rank: int,
        keep: float,
        progress: Progress,
    ) -> None:
        self._tuned, self._base, self._shape = tuned, base, shape
        self._max_rank, self._keep, self._progress = max_rank, keep, progress
        self._layers: list[Layer] = []
        self._notes: list[str] = []
        self._hidden = 0  # matrices whose change drowns in rounding
        self.factors: dict[str, tuple[Matrix, Matrix]] = {}  # module -> B, A, with B A the difference

    @property
    def dtype(self) -> str:
        """The type in which the adapter's numbers are written: 16 bits where the model's are."""
        return "F32" if any(tensor.dtype == "F32" for tensor in self._tuned.tensors.values()) else "BF16"

    def run(self) -> Extraction:
        """Look at every tensor, until one says that there is no adapter."""
        tensors = self._tuned.tensors
        total = sum(tensor.end - tensor.begin for tensor in tensors.values())
        done = 0
        for name, tensor in sorted(tensors.items()):
            why_not = self._look(name, tensor)
            if why_not:
                return self._answer(why_not)
            done += tensor.end - tensor.begin
            self._progress(done, total)
        if not self._layers:
            return self._answer("the two have the same weights: it is the base itself")
        over = [layer for layer in self._layers if layer.rank is None]
        if over:
            least = min(over, key=lambda layer: layer.kept)
            return self._answer(
                f"{len(over)} of {len(self._layers)} matrices that differ need more than rank "
                f"{self._max_rank}: of {least.name} that keeps {least.kept:.0%}"
            )
        return self._answer("")

    def _look(self, name: str, tensor: Tensor) -> str:
        """Look at one tensor; why there is no adapter, or ""."""
        compared = change_of(self._tuned, self._base, name)
        change = compared.relative
        if not change:
            return ""
        module = name.removesuffix(".weight")
        known = self._shape.modules.get(self._shape.path(module))
        if known is None or len(tensor.shape) != 2 or known.is_embedding:
            if change > LEFT_OUT:
                return f"{short(name)} differs by {change:.2%} of its size, and no adapter can change that"
            self._notes.append(f"{short(name)} differs by {change:.3%} of its size, which is left out.")
            return ""
        return self._look_at_matrix(name, module, compared)

    def _look_at_matrix(self, name: str, module: str, compared: Change) -> str:
        tensor = self._tuned.tensors[name]
        rows, columns = tensor.shape
        found = spectrum(
            (rows, columns),
            lambda: differences(self._tuned, self._base, name),
            self._max_rank + 1,
            rounding=compared.rounding,
        )
        self._hidden += found.is_hidden
        rank, keeping = self._rank_of(found), found.rank_keeping(self._keep)
        kept = found.kept(self._max_rank if rank is None else rank)
        self._layers.append(Layer(module, compared.relative, rank, keeping, kept))
        if rank is not None:
            root = np.sqrt(found.values[:rank])
            left, right = found.left[:, :rank] * root, root[:, None] * found.right[:rank]
            self.factors[module] = left.astype(np.float32), right.astype(np.float32)
        elif kept < HOPELESS:
            return (
                f"the difference of {module} is of full rank: its {self._max_rank} largest directions of "
                f"{min(rows, columns)} are {kept:.0%} of it"
            )
        return ""

    def _rank_of(self, found: Spectrum) -> int | None:
        """Return the rank that a matrix needs: all that is no rounding, else what keeps the wanted part."""
        above = found.rank_above_rounding()
        rank = above if above is not None and above <= self._max_rank else found.rank_keeping(self._keep)
        return rank if rank is not None and rank <= self._max_rank else None

    def _answer(self, why_not: str) -> Extraction:
        ranks = [layer.rank for layer in self._layers if layer.rank is not None]
        kept = min((layer.kept for layer in self._layers), default=1.0)
        notes = [*self._notes]
        if self._hidden:
            notes.append(
                f"Of {self._hidden} of {len(self._layers)} matrices the difference is hardly more than what "
                "rounding to 16 bits makes: part of what was trained is lost in the whole model already, and "
                "how much is kept cannot be told."
            )
        return Extraction(why_not, max(ranks, default=0), tuple(self._layers), kept, tuple(notes))


def _folder(model: str) -> Path:
    path = Path(model)
    found = folder_of(str(path.resolve()) if path.is_dir() else model)
    if found is None or not found.is_dir():
        raise AdapterError(f"{model} is neither a folder nor a model of the hub that is on this machine")
    return found


@contextlib.contextmanager
def _named(model: Path) -> Iterator[None]:
    """Have errors say of which model they are."""
    try:
        yield
    except (AdapterError, ModelUnreadable) as error:
        raise AdapterError(f"{model}: {str(error).removeprefix('base model: ')}") from error


def _same_shape(tuned: Path, base: Path) -> list[str]:
    """Return what differs beside the weights. Raises `AdapterError` where the two are of different shapes."""
    with _named(tuned):
        ours = read_contents(tuned)
    with _named(base):
        theirs = read_contents(base)
    if ours.is_quantised or theirs.is_quantised:
        raise AdapterError("quantised weights cannot be compared: give the models as they were before")
    difference = why_other_shape(_without_types(ours), _without_types(theirs))
    if difference:
        raise AdapterError(f"the two are of different shapes: {difference}")
    beside = why_other_shape(
        replace(_without_types(ours), others=ours.others),
        replace(_without_types(theirs), others=theirs.others),
    )
    if not beside:
        return []
    return [f"{beside}: an adapter is served with the base's files; compare the two on your prompts."]


def _without_types(contents: Contents) -> Contents:
    """Return contents that do not say in which floats they are stored, nor what lies beside the weights."""
    config = {k: v for k, v in contents.config.items() if k != "dtype"}
    tensors = {
        name: ("float" if dtype in _FLOATS else dtype, shape)
        for name, (dtype, shape) in contents.tensors.items()
    }
    return Contents(config, tensors, {})


def _write(folder: Path, search: _Search, rank: int, shape: BaseModelShape, base: str) -> AdapterManifest:
    """Write the adapter beside its place, check it, and put it there. Raises `AdapterError`, `OSError`."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        config = _config(search.factors, rank, shape, base)
        (beside / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        metadata = {"format": "pt", FINGERPRINT_KEY: shape.fingerprint}
        tensors: dict[str, Matrix] = {}
        for module, (left, right) in search.factors.items():
            missing = rank - left.shape[1]  # zeros change nothing, and every module then has one rank
            tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.pad(right, ((0, missing), (0, 0)))
            tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.pad(left, ((0, 0), (0, missing)))
        write_tensors(beside / WEIGHTS_FILE, tensors, dtype=search.dtype, metadata=metadata)
        manifest = verify(beside, base=shape, max_rank=rank)
        beside.rename(folder)
    except OSError as error:
        raise AdapterError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _config(factors: Mapping[str, object], rank: int, shape: BaseModelShape, base: str) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": shape.name if Path(base).is_dir() else base,
        "r": rank,
        "lora_alpha": rank,  # so that the matrices are the difference as they are
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({module.rpartition(".")[2] for module in factors}),
    }
