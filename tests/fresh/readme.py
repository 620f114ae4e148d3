"""What does the README promise to who tries it? Read from its text, so that what is tried is what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_INSTALL = re.compile(r"^sudo apt-get install (.+)$", re.MULTILINE)
_KEY = re.compile(r'"([a-z]+-demo-key)"')
_MODEL = re.compile(r'model="(.+?)"')
_QUESTION = re.compile(r'"content": "(.+?)"')
_ANSWERS = re.compile(r"^```text\n(.+?)\n```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Promise:
    """The one line that prepares a machine, a question, and what each key is answered."""

    packages: tuple[str, ...]
    model: str
    question: str
    answers: dict[str, str]  # by key


def promise(text: str) -> Promise:
    """Read it. Raises `ValueError` where the README does not say it any more."""
    found = [pattern.search(text) for pattern in (_INSTALL, _MODEL, _QUESTION, _ANSWERS)]
    if None in found:
        raise ValueError("README.md has no `sudo apt-get install` line, no question or no answers")
    install, model, question, answers = (match[1] for match in found if match)
    keys = list(dict.fromkeys(_KEY.findall(text[: text.index(answers)])))
    return Promise(tuple(install.split()), model, question, dict(zip(keys, answers.split("\n"), strict=True)))
