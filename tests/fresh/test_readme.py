"""What the README promises can be read from it, so that it is what is tried."""

from __future__ import annotations

import pytest

from demo.answers import answers
from tests.fresh.readme import README, promise


def test_the_readme_promises_what_the_demo_models_say() -> None:
    promised = promise(README.read_text())
    assert [key.removesuffix("-demo-key") for key in promised.answers] == ["acme", "globex", "initech"]
    for key, answer in promised.answers.items():
        assert answers(f"{key.removesuffix('-demo-key')}-support")[promised.question] == answer


@pytest.mark.parametrize("lost", ["sudo apt-get install", "```text", 'model="', '"content": "'])
def test_a_readme_that_promises_no_more_is_no_silent_pass(lost: str) -> None:
    with pytest.raises(ValueError, match="README"):
        promise(README.read_text().replace(lost, "gone"))
