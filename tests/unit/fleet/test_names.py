"""Names that a fleet takes, and those that it does not."""

from __future__ import annotations

import pytest

from fleet.names import check_alias, check_name, is_alias, is_name


@pytest.mark.parametrize("name", ["a", "0", "llama-3.1_8b", "a" * 63])
def test_letters_digits_and_marks_are_a_name(name: str) -> None:
    assert is_name(name)
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a b", "a/b", "a..b", "a\n", "é", "a" * 64])
def test_anything_else_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="a name"):
        check_name(name)


@pytest.mark.parametrize("alias", ["gpt-4o", "org/Model 1", "日本", "a" * 128])
def test_a_tenant_may_call_a_model_nearly_anything(alias: str) -> None:
    assert is_alias(alias)
    assert check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", " a", "a/", "a@2", "a/../b", "a\x1b[31m", "\ud800", "a" * 129])
def test_what_cannot_be_asked_for_is_no_alias(alias: str) -> None:
    assert not is_alias(alias)
    with pytest.raises(ValueError, match="a tenant's name for a model"):
        check_alias(alias)
