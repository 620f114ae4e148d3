"""Reading YAML: plain values with their lines, and nothing that a fleet file does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet import document
from fleet.document import Document, read_document
from fleet.problems import Findings


def read(folder: Path, text: str | bytes) -> tuple[Document | None, list[str]]:
    path = folder / "f.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    findings = Findings("f.yaml")
    return read_document(path, findings), [str(problem) for problem in findings.errors]


def test_every_key_and_list_item_has_its_line(tmp_path: Path) -> None:
    found, errors = read(tmp_path, "# a comment\npools:\n  shared:\n    tenants:\n      - a\n      - b\n")
    assert not errors
    assert found == Document(
        {"pools": {"shared": {"tenants": ["a", "b"]}}},
        {
            ("pools",): 2,
            ("pools", "shared"): 3,
            ("pools", "shared", "tenants"): 4,
            ("pools", "shared", "tenants", 0): 5,
            ("pools", "shared", "tenants", 1): 6,
        },
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x: 1", 1),
        ("x: 1.5", 1.5),
        ("x: true", True),
        ("x:", None),
        ("x: ~", None),
        ("x: text", "text"),
        ("x: '1'", "1"),
        ("x: 2024-01-01", "2024-01-01"),
        ("x: [1, a]", [1, "a"]),
        ("x: &anchor {a: 1}", {"a": 1}),
    ],
)
def test_values_are_plain(tmp_path: Path, text: str, value: Any) -> None:
    found, errors = read(tmp_path, text)
    assert not errors
    assert found is not None
    assert found.data == {"x": value}


@pytest.mark.parametrize("text", ["010", "-017", "0_7", "1:30", "1:30.5", "12:30:45"])
def test_a_number_that_yaml_reads_otherwise_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    _, errors = read(tmp_path, f"a: 1\nx: [{text}]\n")
    assert len(errors) == 1 and errors[0].startswith("f.yaml:2: x[0]: a number that YAML reads otherwise")
    assert text not in errors[0]
    assert read(tmp_path, f"x: '{text}'\n{text}: 1\n")[1] == [], "as text, and as a key, it is what it is"


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-0", 0), ("0.5", 0.5), ("10", 10), ("1_000", 1000), ("0x10", 16)]
)
def test_numbers_that_mean_what_they_look_like_are_taken(tmp_path: Path, text: str, value: float) -> None:
    found, errors = read(tmp_path, f"x: {text}")
    assert found is not None and (found.data, errors) == ({"x": value}, [])


def test_keys_are_always_text(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "{on: 1, 1: 2, null: 3, 2024-01-01: 4}")
    assert found is not None
    assert found.data == {"on": 1, "1": 2, "null": 3, "2024-01-01": 4}


def test_an_alias_stands_for_the_value_it_names(tmp_path: Path) -> None:
    found, errors = read(tmp_path, "a: &caps {x: 1}\nb: *caps\n")
    assert not errors
    assert found is not None
    assert found.data == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_key_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    _, errors = read(tmp_path, "tenants:\n  a: 1\n  b: 2\n  a: 3\n")
    assert errors == ["f.yaml:2: tenants.a: again on line 4: a key may be given once; remove one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [1\nb: 2", "not YAML"),
        ("a: 1\n\tb: 2", "not YAML"),
        ("a: *nowhere", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!binary aGk=", "tag tag:yaml.org,2002:binary"),
        ("a: !!set {x}", "tag tag:yaml.org,2002:set"),
        ("base: &b {x: 1}\na:\n  <<: *b\n", "merge keys"),
        ("? [1, 2]\n: 3\n", "keys that are not text"),
        (b"a: \xff", "not UTF-8 at byte 3"),
        (b"a: \x00", "not YAML"),
    ],
)
def test_what_a_fleet_does_not_need_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    _, errors = read(tmp_path, text)
    assert len(errors) == 1
    assert message in errors[0]


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    _, errors = read(tmp_path, "a: 1\nb: 2\nc: [1, 2\nd: 3\n")
    assert errors[0].startswith("f.yaml:4: not YAML: ")


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    findings = Findings("x.yaml")
    assert read_document(tmp_path / "x.yaml", findings) is None
    assert [str(p) for p in findings.errors] == [
        "x.yaml: cannot be read: No such file or directory; check the path and its permissions"
    ]


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_FILE_BYTES", 8)
    found, errors = read(tmp_path, "a: 123456")
    assert found is None
    assert "larger than" in errors[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: " + "[" * 30 + "]" * 30,
        "a: " + "[" * 50_000,
        "\n".join(
            ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
            + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        ),
    ],
    ids=["contains itself", "deep", "very deep", "grows without end"],
)
def test_a_file_that_stands_for_endless_values_is_refused(tmp_path: Path, text: str) -> None:
    found, errors = read(tmp_path, text)
    assert found is None
    assert len(errors) == 1
    assert "not YAML" in errors[0]
