"""No file of the product is too long to read, and no function takes too many turns."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("adapters", "demo", "engines", "fleet", "planning", "routing", "simulation", "tenantry")
FILES = sorted(str(path.relative_to(ROOT)) for room in PRODUCT for path in (ROOT / room).rglob("*.py"))
MAX_LINES = 400
MAX_BRANCHES = 12

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def branches(node: ast.AST) -> int:
    """Count conditions, loops, handlers, cases, comprehensions and further operands of `and` and `or`.

    Functions inside count for themselves, lambdas for the function around them.
    """
    count = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            continue
        if isinstance(child, ast.BoolOp):
            count += len(child.values) - 1
        elif isinstance(child, ast.comprehension):
            count += 1 + len(child.ifs)
        else:
            count += isinstance(child, BRANCHES)
        count += branches(child)
    return count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("return a", 0),
        ("if a: return b\nelif c: return d\nelse: return e", 2),
        ("return a if b and c and d else e or f", 4),
        ("for a in b:\n while a: pass", 2),
        ("try: a()\nexcept B: pass\nexcept C: pass\nfinally: d()", 2),
        ("return [a for b in c if b for d in e], {f: g for f in h}, any(i for i in j)", 5),
        ("match a:\n case 1: pass\n case _: pass", 2),
        ("return sorted(a, key=lambda b: b or c)", 1),
        ("def inner(): return a or b\nreturn inner", 0),
    ],
)
def test_a_branch_is_whatever_may_go_more_than_one_way(body: str, count: int) -> None:
    lines = "\n ".join(body.splitlines())
    assert branches(next(functions(f"def f():\n {lines}"))) == count


@pytest.mark.parametrize("file", ["service.py", *FILES])
def test_a_file_has_at_most_400_lines(file: str) -> None:
    assert len((ROOT / file).read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", ["service.py", *FILES])
def test_a_function_has_at_most_12_branches(file: str) -> None:
    counted = [(node.name, branches(node)) for node in functions((ROOT / file).read_text())]
    assert [(name, count) for name, count in counted if count > MAX_BRANCHES] == []
