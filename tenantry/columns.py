"""A table that fits a terminal: drops columns, least needed first; never breaks an id or a word.

If the needed columns do not fit side by side, a row becomes lines of `column: cell`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from tenantry.running import printable

_PROSE = 24  # least width of wrapping text, for readability


def print_prose(shown: Console, text: str, style: str | None = None) -> None:
    """Print a sentence, broken between words where the terminal ends."""
    for line in _lines(printable(text), shown.width, style or ""):
        shown.print(line, soft_wrap=True)


class Columns:
    """Rows under named columns, of which those that fit are shown.

    `spare` columns may be left out, the first of them first. `prose` may wrap, between words only.
    """

    def __init__(
        self,
        *names: str,
        spare: Collection[str] = (),
        prose: Collection[str] = (),
        right: Collection[str] = (),
        title: str = "",
        note: str = "",
        framed: bool = True,
    ) -> None:
        """`note` names another place that shows the dropped columns."""
        unknown = {*spare, *prose, *right} - {*names}
        if unknown:
            raise ValueError(f"no such columns: {', '.join(sorted(unknown))}")
        self.title, self._names, self._note, self._framed = title, names, note, framed
        self._spare, self._prose, self._right = list(spare), prose, right
        self._rows: list[tuple[list[Text], str]] = []

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def add(self, *cells: Any, style: str | None = None) -> None:
        """Add a row. No cell can steer the terminal."""
        texts = [Text(printable(cell), getattr(cell, "style", "")) for cell in _shown(cells)]
        if len(texts) != len(self._names):
            raise ValueError(f"{len(texts)} cells for {len(self._names)} columns")
        self._rows.append((texts, style or ""))

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Show the columns that fit."""
        width = options.max_width
        chosen = [name for name in self._names if name not in self._spare]
        if not self._fits(chosen, width):
            yield from self._one_by_one(width)
            return
        for name in reversed(self._spare):
            if self._fits([*chosen, name], width):
                chosen.append(name)
        yield self._table([name for name in self._names if name in chosen], width)
        left_out = [name for name in self._names if name not in chosen]
        if left_out:
            text = f"wider terminals also show: {', '.join(left_out)}{self._note and '; '}{self._note}"
            yield from _lines(text, width, "dim")

    def _fits(self, names: Collection[str], width: int) -> bool:
        return sum(self._least(name) for name in names) + self._frame(len(names)) <= width

    def _frame(self, count: int) -> int:
        """Characters between and around this number of columns."""
        return 3 * count + 1 if self._framed else 2 * (count - 1)

    def _cells(self, name: str) -> list[str]:
        index = self._names.index(name)
        return [row[index].plain for row, _ in self._rows]

    def _least(self, name: str) -> int:
        """Characters that a column needs: whole cells, or whole words of prose."""
        cells = self._cells(name)
        needed = max(map(cell_len, cells), default=0)
        if name in self._prose:
            needed = max(min(needed, _PROSE), _longest_word(cells))
        return max(needed, _longest_word([name]))

    def _most(self, name: str) -> int:
        return max(map(cell_len, [name, *self._cells(name)]))

    def _widths(self, names: list[str], width: int) -> list[int]:
        """Divide the remaining width equally among columns that need more."""
        widths, most = [self._least(name) for name in names], [self._most(name) for name in names]
        left = width - sum(widths) - self._frame(len(names))
        while left > 0:
            wanting = [i for i in range(len(names)) if widths[i] < most[i]]
            if not wanting:
                break
            for i in wanting[:left]:
                widths[i] += 1
            left -= len(wanting[:left])
        return widths

    def _table(self, names: list[str], width: int) -> Table:
        table = Table(title=self.title or None, title_justify="left", title_style="bold")
        if not self._framed:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        else:
            table.box = box.HEAVY_HEAD
        for name, wide in zip(names, self._widths(names, width), strict=True):
            justify = "right" if name in self._right else "left"
            table.add_column(name, width=wide, justify=justify)  # type: ignore[arg-type]
        indexes = [self._names.index(name) for name in names]
        for row, style in self._rows:
            table.add_row(*(row[index] for index in indexes), style=style)
        return table

    def _one_by_one(self, width: int) -> Iterable[Text]:
        if self.title:
            yield Text(self.title, "bold")
        for row, style in self._rows:
            pairs = zip(self._names, row, strict=True)
            text = ",  ".join(f"{name}: {cell.plain}" for name, cell in pairs if cell.plain)
            yield from _lines(text, width, style)


def _shown(cells: Iterable[Any]) -> Iterable[Any]:
    return ("" if cell is None else cell for cell in cells)


def _longest_word(texts: Iterable[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def _lines(text: str, width: int, style: str) -> Iterable[Text]:
    """Break text between words; a word longer than a line stays whole."""
    lines = textwrap.wrap(
        text, max(width, 5), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return (Text(line, style, no_wrap=True, overflow="ignore") for line in lines)
