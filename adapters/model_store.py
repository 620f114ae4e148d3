"""Moves adapters into BentoML's model store and out of it: the two files that an engine reads.

BentoML reads BENTOML_HOME when it is first imported; these functions import it.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.checkpoint import check_files, readable
from adapters.errors import AdapterError, StoreFull
from adapters.layout import SERVED_FILES
from adapters.tensors import short


def resolve(tag: str) -> Path:
    """Return the folder of a model in the store, for `name`, `name:latest` or `name:version`.

    Raises `AdapterError` when there is none. The folder belongs to the store: read it, do not change it.
    """
    bentoml = _bentoml()
    with _explained(tag):
        return Path(bentoml.models.get(bentoml.Tag.from_taglike(tag)).path)


def export(folder: Path, name: str, labels: Mapping[str, str]) -> str:
    """Put an adapter's served files into the store under a new version; return its tag, `name:version`.

    `name` is a BentoML name, with a version or without. Nothing else in the folder is copied. Raises
    `AdapterError`; the store then holds no part of it.
    """
    bentoml = _bentoml()
    with readable():
        check_files(folder)
    with _explained(name), bentoml.models.create(name, labels=dict(labels)) as model:
        for file in SERVED_FILES:
            shutil.copyfile(folder / file, Path(model.path) / file)
    return str(model.tag)


def _bentoml() -> Any:
    """Return BentoML. Raises `AdapterError` where it is not installed, as beside the command alone."""
    try:
        import bentoml
    except ModuleNotFoundError as error:
        raise AdapterError(f"BentoML's model store needs {error.name}, which is not installed here") from None
    return bentoml


@contextlib.contextmanager
def _explained(tag: str) -> Iterator[None]:
    """Turn BentoML's errors into a remedy for operators; its messages hold paths of the machine."""
    from bentoml.exceptions import BentoMLException, NotFound

    try:
        yield
    except NotFound:
        raise AdapterError(
            f"BentoML's model store has no {short(tag)}; `bentoml models list` shows what it has"
        ) from None
    except (BentoMLException, ValueError) as error:
        text = str(error).partition(" in BentoML store")[0].partition(" in the store")[0]
        raise AdapterError(f"BentoML's model store refuses {short(tag)}: {short(text)}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreFull(f"no room in BentoML's model store for {short(tag)}") from error
        raise AdapterError(
            f"BentoML's model store cannot be used for {short(tag)}: {error.strerror or type(error).__name__}"
        ) from error
