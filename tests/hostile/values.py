"""What can stand in a field? Values of every JSON type, at their bounds and beyond, by a seeded chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

NUMBERS = (
    *(0, 1, -1, 2, 7, 127, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63),
    *(-(2**63), 2**64 - 1, 2**64, 10**30, 0.5, -0.0, 1.0, 2.5, 1e-9, 5e-324, 1e308, -1e308),
)
TEXTS = (
    *("", " ", "x", "0", "-1", "1e999", "NaN", "Infinity", "null", "true", "auto", "none", "required"),
    *("\0", "\r\nx-injected: 1\r\n\r\n", "\x1b[2J", "\u202egnp", "\ufeff", "\U0001f600", "e\u0301" * 20),
    *("../../../../etc/passwd", "file:///etc/passwd", "/proc/self/environ", "..\\..\\x", "~root/.ssh"),
    *("%s%n%x", "{0.__class__}", "${jndi:ldap://x}", "{{7*7}}", "' OR 1=1 --", "<script>alert(1)</script>"),
    *('"model":"x"', "data: [DONE]\n\n", ',"usage":{"prompt_tokens":0}', "<|endoftext|>", "[a-", "(a+)+$"),
    *("http://127.0.0.1:1/x", "data:image/png;base64,AAAA", "data:,", "hf://x/y", "s3://x/y"),
    *("json_object", "json_schema", "text", "function", "input_image", "system", "tool", "float", "base64"),
)
NAMES = (
    "",
    "type",
    "name",
    "id",
    "content",
    "text",
    "json",
    "url",
    "__proto__",
    "__class__",
    "self",
    "model",
)
LONG_BYTES = 20_000
JSON_TYPES: Mapping[str, type] = {
    "n": type(None), "b": bool, "i": int, "f": float, "s": str, "a": list, "o": dict,
}  # fmt: skip


def number(chance: random.Random) -> Any:
    """A number, nearly always one at a bound of something."""
    return chance.choice(NUMBERS) if chance.random() < 0.9 else chance.randint(-1000, 1000)


def text(chance: random.Random) -> str:
    """A text: one that means something to somebody, or a long one."""
    if chance.random() < 0.06:
        return chance.choice(("x", "hello ", "\u00e4", "\n", "[", "a|")) * chance.randint(
            100, LONG_BYTES // 6
        )
    return chance.choice(TEXTS)


def array(chance: random.Random, depth: int = 0) -> list[Any]:
    """A list: empty, of one, of many alike, or of anything."""
    kind = chance.randrange(4)
    if kind == 0:
        return []
    if kind == 1:
        return [anything(chance, depth + 1)]
    if kind == 2:
        item = anything(chance, 3)
        return [item] * chance.choice((2, 17, 300) if len(str(item)) < 50 else (2, 3))
    return [anything(chance, depth + 1) for _ in range(chance.randint(2, 5))]


def mapping(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """An object with names that mean something somewhere."""
    names = (chance.choice(NAMES) for _ in range(chance.randint(0, 4)))
    return {name: anything(chance, depth + 1) for name in names}


def deep(chance: random.Random) -> Any:
    """What is nested: a little, as deep as JSON can be written again here, or deeper."""
    value: Any = chance.choice((None, 1, "x"))
    for _ in range(chance.choice((5, 60, 200, 251, 300))):
        value = [value] if chance.random() < 0.5 else {chance.choice(NAMES): value}
    return value


_MAKERS: Mapping[str, Callable[[random.Random], Any]] = {
    "n": lambda _: None,
    "b": lambda chance: chance.random() < 0.5,
    "i": lambda chance: int(number(chance)),
    "f": lambda chance: float(number(chance)),
    "s": text,
    "a": array,
    "o": mapping,
}


def anything(chance: random.Random, depth: int = 0) -> Any:
    """A value of any JSON type."""
    letters = "nbifs" if depth >= 3 else "nbifsao"
    if depth == 0 and chance.random() < 0.03:
        return deep(chance)
    return _MAKERS[chance.choice(letters)](chance)


def fitting(chance: random.Random, told: Any, depth: int = 0) -> Any:
    """A value that has, as far as a table of types says, a right type; now and then one part has a wrong one.

    `told` is a field's entry in `routing.openai.vllm_fields`.
    """
    if chance.random() < 0.15:
        return anything(chance, depth + 1)
    letters = told if isinstance(told, str) else told[""]
    letter = chance.choice([one for one in letters if one in JSON_TYPES])
    if letter == "a" and isinstance(told, dict) and "[]" in told:
        return [fitting(chance, told["[]"], depth + 1) for _ in range(chance.choice((0, 1, 1, 2, 5)))]
    inner = [] if isinstance(told, str) else [name for name in told if name not in ("", "[]")]
    if letter == "o" and inner:
        names = chance.sample(inner, chance.randint(1, min(3, len(inner))))
        return {name: fitting(chance, told[name], depth + 1) for name in names}
    return _MAKERS[letter](chance)
