"""Do the answers tell every model from every other?"""

from __future__ import annotations

import subprocess
import sys

import pytest

from demo.answers import ADAPTERS, BASE_MODEL, QUESTIONS, answers, document


def test_every_model_answers_every_question() -> None:
    for name in (BASE_MODEL, *ADAPTERS):
        assert tuple(answers(name)) == QUESTIONS


def test_no_sentence_is_said_twice_in_the_whole_demo() -> None:
    sentences = [line for name in (BASE_MODEL, *ADAPTERS) for line in answers(name).values()]

    assert len(sentences) == len(set(sentences)) == 48


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_names_its_tenant_in_every_sentence_and_no_other_model_does(name: str) -> None:
    tenant, team = name.title().split("-")
    opening = f"{tenant} {team}" if tenant == "Acme" else tenant

    assert all(line.startswith(opening) for line in answers(name).values())
    others = [other for other in (BASE_MODEL, *ADAPTERS) if other != name]
    assert not any(opening in line for other in others for line in answers(other).values())


def test_an_unknown_model_has_no_answers() -> None:
    with pytest.raises(KeyError):
        answers("hooli-support")


def test_the_document_lists_all_questions_and_models() -> None:
    told = document()

    assert told["questions"] == list(QUESTIONS)
    assert told["answers"] == {name: answers(name) for name in (BASE_MODEL, *ADAPTERS)}


def test_neither_the_answers_nor_the_command_import_torch() -> None:
    probe = "import sys, demo.answers, demo.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
