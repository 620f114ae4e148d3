"""The report of a plan: one HTML page with its styles and drawings in it; it fetches nothing. Pure.

Texts of demand and fleet files are escaped: a model's name is text, whatever is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from planning.words import counted

Answer = dict[str, Any]
_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c1c1e; background: #fff }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: currentColor }
.bad { color: #b3261e } .dim { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #e8e8ea; background: #17171a }
  th, td { border-color: #3a3a3f } .bad { color: #ff8a80 } .dim { color: #a0a0a6 } }
"""
_MOST_POOLS, _MOST_MODELS = 24, 40  # drawn


def page(answer: Answer) -> str:
    """Return the report."""
    devices = counted(answer["devices"]["planned"], "device")
    verdict = "meets all objectives" if answer["meets_objectives"] else "does not meet all objectives"
    parts = [
        f"<h1>{devices}</h1>",
        f"<p>{escape(answer['source'])}. Simulated, the plan {verdict}.</p>",
        _ways(answer),
        "<h2>Busy over the day</h2><p class=dim>Part of a device's time with full batches, hour by hour.</p>",
        _day(answer["pools"]),
        "<h2>Memory of a device</h2><p class=dim>While the largest models of each pool are awake.</p>",
        _memory(answer["pools"]),
        "<h2>First token</h2><p class=dim>Half of the requests, and 99 % of them, simulated; "
        "hollow in the second plan; the line is the objective.</p>",
        _first_tokens(answer["models"]),
        "<h2>Models</h2>",
        _models(answer["models"]),
        _sentences("What would change the answer", answer["would_change"]),
        _sentences("What is not known", answer["not_known"]),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Plan: {devices}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _ways(answer: Answer) -> str:
    now = answer["devices"]["now"]
    rows = [] if now is None else [("now", str(now), "")]
    for way in answer["ways"]:
        devices = escape(way["why_not"]) if way["devices"] is None else str(way["devices"])
        rows.append((escape(way["way"]), devices, _money(way["money_per_hour"])))
    planned = f"<b>{answer['devices']['planned']}</b>"
    rows.append(("<b>planned, simulated</b>", planned, _money(answer["money_per_hour"])))
    head = "<tr><th>way<th class=n>devices<th class=n>an hour</tr>"
    body = "".join(f"<tr><td>{a}<td class=n>{b}<td class=n>{c}</tr>" for a, b, c in rows)
    return f"<table>{head}{body}</table>"


def _money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:,.2f}"


def _models(models: Sequence[Answer]) -> str:
    head = "<tr><th>model<th>served<th>why<th class=n>p50 s<th class=n>p99 s</tr>"
    rows = [
        f"<tr><td>{escape(one['model'])}<td>{escape(one['served'])}<td>{escape(one['why'])}"
        f"{'<br><span class=bad>misses: ' + escape(one['missed']) + '</span>' if one['missed'] else ''}"
        f"<td class=n>{_mean(one['first_token_p50_s'])}<td class=n>{_mean(one['first_token_p99_s'])}</tr>"
        for one in models
    ]
    return f"<table>{head}{''.join(rows)}</table>"


def _mean(spread: Sequence[float] | None) -> str:
    return "" if spread is None else f"{spread[0]:.2g}"


def _sentences(title: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}" for text in texts)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


# -- drawings ---------------------------------------------------------------------------------------------


def _svg(width: int, height: int, inside: str, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{inside}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(
    x: float, y: float, width: float, height: float, colour: str, title: str, *, hollow: bool = False
) -> str:
    paint = f'fill="none" stroke="{colour}"' if hollow else f'fill="{colour}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width):.1f}" height="{height:.1f}" {paint}>'
        f"<title>{escape(title)}</title></rect>"
    )


def _day(pools: Sequence[Answer]) -> str:
    """A line for each pool: how busy its devices are."""
    most = max((value for pool in pools for value in pool["hours"]), default=0.0) or 1.0
    drawn = [
        '<line x1="40" y1="200" x2="880" y2="200" stroke="currentColor" />',
        _text(0, 18, f"{100 * most:.0f} %"),
    ]
    for index, pool in enumerate(pools[:_MOST_POOLS]):
        colour, hours = _COLOURS[index % len(_COLOURS)], pool["hours"]
        points = " ".join(
            f"{40 + 840 * hour / max(1, len(hours) - 1):.1f},{200 - 190 * value / most:.1f}"
            for hour, value in enumerate(hours)
        )
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" />')
        x, y = 40 + 280 * (index % 3), 220 + 16 * (index // 3)
        drawn += [_box(x, y - 9, 10, 10, colour, pool["pool"]), _text(x + 16, y, pool["pool"][:36])]
    rows = math.ceil(min(len(pools), _MOST_POOLS) / 3)
    return _svg(900, 220 + 16 * rows, "".join(drawn), "How busy devices are over the day")


def _memory(pools: Sequence[Answer]) -> str:
    """A bar for each pool: one device of it, and what is in its memory."""
    drawn = []
    most = max((pool["memory"]["device_bytes"] for pool in pools), default=1)
    for row, pool in enumerate(pools[:_MOST_POOLS]):
        y, x, scale = 10 + 26 * row, 220.0, 660 / most
        drawn.append(_text(0, y + 13, pool["pool"][:32]))
        drawn.append(
            _box(x, y, pool["memory"]["device_bytes"] * scale, 18, "currentColor", "device", hollow=True)
        )
        for number, held in enumerate(pool["memory"]["awake"]):
            colour = _COLOURS[number % len(_COLOURS)]
            for name, part in (("weights", 1.0), ("cache", 0.55), ("other", 0.3)):
                width = held[f"{name}_bytes"] * scale
                title = f"{held['model']}: {name} {held[f'{name}_bytes'] / 2**30:.1f} GiB"
                drawn.append(f'<g opacity="{part}">{_box(x, y + 1, width, 16, colour, title)}</g>')
                x += width
    return _svg(900, 20 + 26 * min(len(pools), _MOST_POOLS), "".join(drawn), "Memory of devices")


def _first_tokens(models: Sequence[Answer]) -> str:
    """A row for each model, on a logarithmic axis from 10 ms to 100 s."""
    drawn = []
    shown = [one for one in models if one["first_token_p50_s"]][:_MOST_MODELS]
    for power in range(-2, 3):
        x = _at(10.0**power)
        drawn.append(f'<line x1="{x:.1f}" y1="14" x2="{x:.1f}" y2="{20 + 16 * len(shown)}" stroke="#8884" />')
        drawn.append(_text(x, 10, f"{10.0**power:g} s", "middle"))
    for row, one in enumerate(shown):
        y = 20 + 16 * row
        drawn.append(_text(0, y + 9, one["model"][:32]))
        drawn.append(_span(one, y + 2, 8, hollow=False))
        if one["in_the_second_plan"] and one["in_the_second_plan"]["first_token_p50_s"]:
            drawn.append(_span(one["in_the_second_plan"], y + 4, 4, hollow=True))
        if one["objective_s"] is not None:
            x = _at(one["objective_s"])
            drawn.append(
                f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 12}" stroke="#b3261e" stroke-width="2" />'
            )
    return _svg(900, 24 + 16 * len(shown), "".join(drawn), "First token of each model")


def _span(one: Answer, y: float, height: float, *, hollow: bool) -> str:
    low, high = one["first_token_p50_s"][0], one["first_token_p99_s"][0]
    colour = _COLOURS[1] if hollow else _COLOURS[0]
    return _box(
        _at(low), y, _at(high) - _at(low), height, colour, f"p50 {low:.3g} s, p99 {high:.3g} s", hollow=hollow
    )


def _at(seconds: float) -> float:
    return 220 + 660 * (min(2.0, max(-2.0, math.log10(max(seconds, 1e-9)))) + 2) / 4
