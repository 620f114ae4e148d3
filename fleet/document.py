"""Reads a YAML file: its values and the line of each. Refuses every feature that a fleet file does not need.

Only plain values come out: mappings, lists, text, numbers, booleans and null. Keys are always text, so `on:`
and `1:` are texts. Refused: a key twice, other tags than YAML's own, merge keys, several
documents, and files whose size or nesting would exhaust memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleet.problems import Findings, KeyPath

MAX_FILE_BYTES = 4 * 2**20
_MAX_VALUES = 500_000  # aliases let a small file stand for endless values
_MAX_DEPTH = 16
_TOO_MUCH = "too many or too deeply nested values (does an alias contain itself?)"

_YAML = "tag:yaml.org,2002:"
_SCALARS = frozenset({f"{_YAML}{kind}" for kind in ("str", "int", "float", "bool", "null")})
_TIMESTAMP = f"{_YAML}timestamp"  # no setting is a date: it stays the text it is
_MERGE = f"{_YAML}merge"
_MISREAD = re.compile(r"[-+]?(0[0-7_]+|[0-9_.]+:[0-9_:.]+)")  # octal, and numbers to the base of 60
_OTHERWISE = (
    "a number that YAML reads otherwise: one that begins with 0 is octal, one with `:` counts by 60",
    "write it in plain digits, or put it in quotes if it is a text",
)
_Loader = yaml.SafeLoader | yaml.CSafeLoader


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values, and the line of each key and list item (counted from 1)."""

    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_document(path: Path, findings: Findings, raw: bytes | None = None) -> Document | None:
    """Read a file; None when it cannot be read. Faults go into `findings`. `raw` is what it would hold."""
    raw = _read_bytes(path, findings) if raw is None else raw
    text = None if raw is None else _decoded(raw, findings)
    if text is None:
        return None
    try:
        return _compose(text, findings)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Findings(findings.file, {("",): mark.line + 1} if mark else {})
        where.error(
            ("",),
            f"not YAML: {error.problem or error.context}",
            "check indentation, quotes, brackets",
            hides=True,
        )
        findings.take(where)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        findings.error((), f"not YAML: {_first_line(error)}", hides=True)
    return None


def _compose(text: str, findings: Findings) -> Document | None:
    """Turn text into values. Raises `yaml.YAMLError`, `RecursionError` and `ValueError`."""
    loader, root = _root(text)
    try:
        if root is None:
            findings.error((), "the file is empty", "start from docs/examples/llama-3-8b-h100.yaml")
            return None
        reader = _Reader(loader, findings.file)
        data = reader.value(root, ())
        findings.take(reader.findings)
        return Document(data, reader.lines)
    finally:
        loader.dispose()


def _root(text: str) -> tuple[_Loader, yaml.Node | None]:
    """Compose with libyaml, ten times as fast as PyYAML; where it finds a fault, PyYAML shall explain it."""
    try:
        _check_depth(text)
        fast = yaml.CSafeLoader(text)
        return fast, fast.get_single_node()
    except yaml.YAMLError:
        loader = yaml.SafeLoader(text)
        return loader, loader.get_single_node()


def _check_depth(text: str) -> None:
    """Refuse what is nested too deeply: libyaml's composer would exhaust the stack, and the process die."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _TooMuchError(_TOO_MUCH)


def _read_bytes(path: Path, findings: Findings) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        findings.error((), f"cannot be read: {reason}", "check the path and its permissions")
        return None


def _decoded(raw: bytes, findings: Findings) -> str | None:
    if len(raw) > MAX_FILE_BYTES:
        findings.error((), f"larger than {MAX_FILE_BYTES // 2**20} MiB", "a fleet file holds no weights")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        findings.error((), f"not UTF-8 at byte {error.start}", "save the file as UTF-8", hides=True)
        return None


class _TooMuchError(ValueError):
    """The file stands for more values than a fleet can need."""


class _Reader:
    """Turns YAML nodes into plain values and notes their lines."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self._loader = loader
        self._count = 0
        self.lines: dict[KeyPath, int] = {}
        self.findings = Findings(file, self.lines)

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES or len(path) > _MAX_DEPTH:
            raise _TooMuchError(_TOO_MUCH)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
            return self._sequence(node, path)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                self.lines.setdefault(path, line)
                self.findings.error(
                    path, "merge keys and keys that are not text are not taken", "write it out", hides=True
                )
                continue
            name = str(key_node.value)
            key = (*path, name)
            if name in values:
                self.findings.error(
                    key, f"again on line {line}: a key may be given once", "remove one", hides=True
                )
                continue
            self.lines[key] = line
            values[name] = self.value(value_node, key)
        return values

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self.lines[(*path, index)] = item.start_mark.line + 1
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag == _TIMESTAMP:
            return node.value
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            self.lines.setdefault(path, node.start_mark.line + 1)
            self.findings.error(path, f"tag {node.tag} is not taken here", "remove the tag", hides=True)
            return None
        try:
            value = self._loader.construct_object(node)
        except ValueError:
            return node.value
        if type(value) in (int, float) and _MISREAD.fullmatch(node.value):
            self.lines.setdefault(path, node.start_mark.line + 1)
            self.findings.error(path, *_OTHERWISE, hides=True)
        return value


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
