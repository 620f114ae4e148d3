"""Are a text's values replaced where they stand, and all else left as it is?"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fleet.editing import CannotEdit, edited

TEXT = """\
# Überblick
tenants:
  # a nightly batch
  orchid:  # may wait
    weight: 2.5  # twice
    caps: {max_queued: 10, rate: 1_200_000}  # inline

    sources: [a, b]
  # people
  helios:
    caps:
      max_queued: 5
      # the rate
      rate: 60
    models: {support: helios-support}


pools:
  shared:
    tenants:
    - orchid  # first
    # second
    - helios
  empty: {tenants: []}
"""
HAVE: dict[str, Any] = yaml.safe_load(TEXT)


def changed(change: Any) -> tuple[str, Any]:
    """The text after a change of its values, and those."""
    want = yaml.safe_load(TEXT)
    change(want)
    text = edited(TEXT, HAVE, want)
    assert yaml.safe_load(text) == want
    return text, want


def lines_that_differ(text: str) -> tuple[list[str], list[str]]:
    before, after = TEXT.splitlines(), text.splitlines()
    return [line for line in before if line not in after], [line for line in after if line not in before]


def test_the_same_values_leave_every_byte() -> None:
    assert edited(TEXT, HAVE, yaml.safe_load(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("path", "value", "gone", "come"),
    [
        ("tenants.orchid.weight", 3, "    weight: 2.5  # twice", "    weight: 3  # twice"),
        (
            "tenants.orchid.caps.max_queued",
            11,
            "    caps: {max_queued: 10, rate: 1_200_000}  # inline",
            "    caps: {max_queued: 11, rate: 1_200_000}  # inline",
        ),
        (
            "tenants.orchid.caps.more",
            1,
            "    caps: {max_queued: 10, rate: 1_200_000}  # inline",
            "    caps: {max_queued: 10, rate: 1_200_000, more: 1}  # inline",
        ),
        (
            "tenants.orchid.sources",
            ["b", "c: d"],
            "    sources: [a, b]",
            "    sources: [b, 'c: d']",
        ),
        ("tenants.helios.caps.rate", 61, "      rate: 60", "      rate: 61"),
        ("tenants.helios.weight", 2, None, "    weight: 2"),
        ("tenants.helios.models", {"x": "y"}, "    models: {support: helios-support}", "    models: {x: y}"),
        ("pools.empty.tenants", ["a"], "  empty: {tenants: []}", "  empty: {tenants: [a]}"),
        ("pools.shared.tenants", ["orchid", "helios", "new"], None, "    - new"),
    ],
)
def test_one_value_changes_one_line(path: str, value: Any, gone: str | None, come: str) -> None:
    *parents, last = path.split(".")

    def change(values: Any) -> None:
        for parent in parents:
            values = values[parent]
        values[last] = value

    text, _ = changed(change)
    assert lines_that_differ(text) == ([] if gone is None else [gone], [come])


def test_an_entry_that_goes_takes_the_comments_right_above_it_along() -> None:
    text, _ = changed(lambda values: values["tenants"].pop("orchid"))
    assert "nightly" not in text and "# people" in text and text.startswith("# Überblick\ntenants:\n")
    text, _ = changed(lambda values: values["tenants"]["helios"]["caps"].pop("rate"))
    assert "# the rate" not in text and "max_queued: 5" in text
    text, _ = changed(lambda values: values["pools"]["shared"]["tenants"].remove("helios"))
    assert "# second" not in text and "# first" in text


def test_a_new_entry_is_written_behind_the_last_in_lines_of_its_own() -> None:
    new = {"api_keys": [], "models": {"chat": "llama"}, "caps": {"rate": 1}}
    text, _ = changed(lambda values: values["tenants"].update(new=new))
    assert "  new:\n    api_keys: []\n    models: {chat: llama}\n    caps: {rate: 1}\n" in text
    assert lines_that_differ(text)[0] == []


def test_several_changes_at_once_and_what_is_next_to_each_other() -> None:
    def change(values: Any) -> None:
        del values["tenants"]["helios"], values["tenants"]["orchid"]["caps"]["max_queued"]
        values["tenants"]["orchid"]["caps"]["more"] = 1
        values["tenants"]["new"] = {"models": {"a": {"model": "x", "fallback": "y"}}}
        values["pools"]["shared"]["tenants"] = ["orchid", "new"]

    text, _ = changed(change)
    assert "    caps: {rate: 1_200_000, more: 1}  # inline" in text


@pytest.mark.parametrize(
    "text", ["a: {}  # none yet\nb: 1\n", "b: 1\na: {x: 1}", "a:\n- x\nb: 1\n", "a: [\n x,\n y, # z\n]\n"]
)
@pytest.mark.parametrize(
    "value", [{"t": {"models": {"x": {"y": "z"}}}}, ["x", "new"], [], 5, None, "on", "ü: x"]
)
def test_any_value_takes_the_place_of_any_other(text: str, value: Any) -> None:
    have = yaml.safe_load(text)
    assert yaml.safe_load(edited(text, have, have | {"a": value})) == have | {"a": value}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("{a: 1}", {"a": 2}),
        ("a: |\n  x\nb: 1\n", {"a": "y", "b": 1}),
        ("a: [x, y]\n", {"a": ["y", "x"]}),
        ("a: &x {k: 1}\nb: *x\n", {"a": {"k": 2}, "b": {"k": 2}}),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, want: Any) -> None:
    with pytest.raises(CannotEdit):
        edited(text, yaml.safe_load(text), want)
