"""Brings the values of a YAML text to others; all else stays as it is: comments, order, spelling. Pure.

A value that stays is not touched. One that differs is replaced where it stands, one that is new comes after
the last of its mapping or list, one that goes takes the comments right above it along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


class CannotEdit(ValueError):
    """The text is written in a way in which its values cannot be replaced one by one."""


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int  # in characters
    end: int
    text: str


def edited(text: str, have: Any, want: Any) -> str:
    """Return the text, which holds the values `have`, with the values `want`. Raises `CannotEdit`.

    Where an anchor stands for several values the result may have others: look at what it holds.
    """
    if have == want:
        return text
    loader = yaml.CSafeLoader(text)
    try:
        root = loader.get_single_node()
    finally:
        loader.dispose()
    editor = _Editor(text)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise CannotEdit
    editor.bring(root, have, want)
    return editor.result()


class _Editor:
    def __init__(self, text: str) -> None:
        self._text = text
        self._edits: list[_Edit] = []

    def result(self) -> str:
        """Return the text after all edits; those at one place in the order in which they were made."""
        parts, at = [], 0
        for edit in sorted(self._edits, key=lambda each: (each.start, each.end)):
            if edit.start < at:
                raise CannotEdit
            parts += [self._text[at : edit.start], edit.text]
            at = edit.end
        return "".join((*parts, self._text[at:]))

    def bring(self, node: yaml.CollectionNode, have: Any, want: Any) -> None:
        """Edit what is in a collection of which something stays."""
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, have, want)
        elif isinstance(node, yaml.SequenceNode):
            self._sequence(node, have, want)

    def _mapping(self, node: yaml.MappingNode, have: Mapping[str, Any], want: Mapping[str, Any]) -> None:
        spans = [(key.start_mark.index, _end(value)) for key, value in node.value]
        kept = 0
        for place, (key, value) in enumerate(node.value):
            name = str(key.value)
            if name not in want:
                self._remove(node, spans, place, first=kept == 0)
                continue
            kept += 1
            if have[name] == want[name]:
                continue
            if _some_stays(value, have[name], want[name]):
                self.bring(value, have[name], want[name])
            else:
                self._replace(node, key, value, want[name])
        added = {name: each for name, each in want.items() if name not in have}
        for name, each in added.items():
            if node.flow_style:
                self._insert(spans[-1][1], f", {_flow(name)}: {_flow(each)}")
            else:
                self._insert_lines(spans[-1][1], _block({name: each}, _column(node)))

    def _sequence(self, node: yaml.SequenceNode, have: Sequence[Any], want: Sequence[Any]) -> None:
        stays = _stays(have, want)
        spans = [(item.start_mark.index, _end(item)) for item in node.value]
        for place, kept in enumerate(stays):
            if not kept:
                self._remove(node, spans, place, first=not any(stays[:place]))
        for each in want[sum(stays) :]:
            if node.flow_style:
                self._insert(spans[-1][1], f", {_flow(each)}")
            else:
                self._insert_lines(spans[-1][1], f"{' ' * _column(node)}- {_flow(each)}\n")

    def _replace(self, node: yaml.MappingNode, key: yaml.Node, value: yaml.Node, want: Any) -> None:
        start, end = value.start_mark.index, _end(value)
        if isinstance(value, yaml.CollectionNode) and not value.flow_style:
            start = self._text.index(":", key.end_mark.index) + 1
        whole = isinstance(want, Mapping) and bool(want) and not node.flow_style
        if whole and any(isinstance(each, Mapping) and each for each in want.values()):
            start = self._text.index(":", key.end_mark.index) + 1
            block = _block(want, _column(node) + 2)
            self._edits.append(_Edit(start, end, "\n" + block.removesuffix("\n")))
        else:
            self._edits.append(_Edit(start, end, (" " if self._text[start - 1] == ":" else "") + _flow(want)))

    def _remove(
        self, node: yaml.CollectionNode, spans: Sequence[tuple[int, int]], place: int, *, first: bool
    ) -> None:
        """Remove an entry; `first`: nothing before it stays, so that something behind it does."""
        start, end = spans[place]
        if not node.flow_style:
            self._edits.append(_Edit(self._above(start), self._line_end(end), ""))
        elif first:
            self._edits.append(_Edit(start, spans[place + 1][0], ""))
        else:
            self._edits.append(_Edit(spans[place - 1][1], end, ""))

    def _insert(self, at: int, text: str) -> None:
        self._edits.append(_Edit(at, at, text))

    def _insert_lines(self, after: int, lines: str) -> None:
        at = self._line_end(after)
        begin = "" if self._text[:at].endswith("\n") else "\n"
        self._edits.append(_Edit(at, at, begin + lines))

    def _line_end(self, at: int) -> int:
        """Return where the next line begins; what stands behind a value in its line is a comment."""
        found = self._text.find("\n", at)
        return len(self._text) if found < 0 else found + 1

    def _above(self, at: int) -> int:
        """Return where an entry begins that stands in lines of its own, with the comments right above it."""
        begin = self._text.rfind("\n", 0, at) + 1
        before = self._text[begin:at]
        if before.strip(" -"):
            raise CannotEdit
        column = len(before) - len(before.lstrip(" ")) if "-" in before else len(before)
        while begin:
            above = self._text.rfind("\n", 0, begin - 1) + 1
            line = self._text[above:begin]
            if not line.lstrip(" ").startswith("#") or line.index("#") != column:
                break
            begin = above
        return begin


def _stays(have: Sequence[Any], want: Sequence[Any]) -> list[bool]:
    """Return which of a list's values stay; what is new must come behind them. Raises `CannotEdit`."""
    names = {repr(each) for each in want}
    stays = [repr(each) in names for each in have]
    kept = [each for each, stay in zip(have, stays, strict=True) if stay]
    if kept != list(want[: len(kept)]):
        raise CannotEdit
    return stays


def _some_stays(node: yaml.Node, have: Any, want: Any) -> bool:
    """Whether the values are to be brought one by one: both are collections and have something in common."""
    if isinstance(node, yaml.MappingNode) and isinstance(want, Mapping):
        return not have.keys().isdisjoint(want)
    if isinstance(node, yaml.SequenceNode) and isinstance(want, list):
        names = {repr(each) for each in want}
        return any(repr(each) in names for each in have)
    return False


def _end(node: yaml.Node) -> int:
    """Return where a value ends; of a block, where its last value does, before comments and empty lines."""
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        raise CannotEdit
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _column(node: yaml.CollectionNode) -> int:
    return int(node.start_mark.column)


def _flow(value: Any) -> str:
    """Write a value in one line."""
    listed = yaml.safe_dump(
        [value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9
    )
    return listed.strip()[1:-1]


def _block(values: Mapping[str, Any], column: int) -> str:
    """Write entries in lines of their own; what is inside them is in one line each."""
    return "".join(f"{' ' * column}{line}\n" for line in _lines(values))


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(each, Mapping | list) for each in value.values()):
            yield f"{_flow(name)}:"
            yield from (f"  {line}" for line in _lines(value))
        else:
            yield f"{_flow(name)}: {_flow(value)}"
