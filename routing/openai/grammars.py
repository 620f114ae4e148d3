"""Would an engine compile this grammar, or step through it, for seconds? Judged from its text, at once. Pure.

Two kinds stall engines, however short their texts are. Many parts in a row that may each be longer or shorter
(`"a"? "a"? "a"? ...`) make as many states at every place: a hundred of them compile for ten seconds. A rule
that begins and ends with itself (`e ::= e "+" e`) has so many parses that every token takes longer
than the one before. Malformed grammars are left to the engine, which refuses them.

Grammars are GBNF, as xgrammar takes them, or Lark, as llguidance does; regular expressions are read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

MAX_IN_A_ROW = 8  # parts of variable length
MAX_VARIABLE = 512  # of them in all
MAX_GROUPS = 32  # nested
MAX_PARTS = 4096  # of all rules; bounds the cost of reading them

# Tokens, in the order in which they are tried. An unclosed literal ends the reading.
_NAMES = r"""(?P<name>[A-Za-z_][\w\-]*)|(?P<bar>\|)|(?P<empty>""(?!"))"""
_GBNF = re.compile(
    rf"""(?P<space>\s+|\#[^\n]*)
    |(?P<rule>[A-Za-z_][\w\-]*\s*::=)
    |{_NAMES}|(?P<open>\()|(?P<close>\))
    |(?P<atom>"(?:[^"\\\n]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\.)
    |(?P<count>[?*+]|\{{\d*,?\d*\}})
    |(?P<unclosed>["\[])|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_LARK = re.compile(
    rf"""(?P<space>\s+|//[^\n]*|\#[^\n]*|%[a-z][^\n]*|->[ \t]*\w+)
    |(?P<rule>(?:^|(?<=\n))[ \t]*[?!]*[A-Za-z_][\w.\-]*(?:\{{[\w ,]*\}})?(?:\[[^\]\n]*\])?[ \t]*:)
    |{_NAMES}|(?P<open>[(\[])|(?P<close>[)\]])
    |(?P<atom>"(?:[^"\\\n]|\\.)*"i?|/(?:[^/\\\n]|\\.)+/[a-z]*|<[^<>\n]*>)
    |(?P<count>[?*+]|\{{\d*,?\d*\}}|~[ ]*\d+(?:[ ]*\.\.[ ]*\d+)?)
    |(?P<unclosed>["/])|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_REGEX = re.compile(
    r"""(?P<count>[?*+][?+]?|\{\d+(?:,\d*)?\}[?+]?|\{,\d+\}[?+]?)
    |(?P<open>\((?:\?(?:[:=!>]|<[=!]|P?<\w+>))?)|(?P<close>\))|(?P<bar>\|)
    |(?P<empty>\\[bBAZz]|\^|\$)
    |(?P<atom>\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]|[\w ,;:'"/=<>@&%!~`\#-]+(?![?*+{])|[^\[])
    |(?P<unclosed>\[)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBERS = re.compile(r"\d+")


class Costly(ValueError):
    """The grammar would keep an engine busy; the message tells its author why."""


@dataclass(slots=True)
class _Part:
    """One part of a sequence: something fixed, another rule, or a choice of sequences; repeated."""

    rule: str | None = None
    choices: list[list[_Part]] = field(default_factory=list)
    least: int = 1
    most: int | None = 1  # None: no bound
    is_empty: bool = False  # reads nothing


_Sequence = list[_Part]
_Rules = Mapping[str, list[_Sequence]]


def check_regex(text: str) -> None:
    """Raise `Costly` for a regular expression that an engine could not compile or step through in time."""
    _refuse_long_rows(_read(_tokens(_REGEX, text)))


def check_grammar(text: str) -> None:
    """Raise `Costly` for a grammar that an engine could not compile or step through in time."""
    rules = _read(_tokens(_GBNF if "::=" in text else _LARK, text))
    empty = _refuse_long_rows(rules)
    _refuse_ambiguous(rules, empty)


# -- reading -----------------------------------------------------------------------------------------------


def _tokens(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    closed = takewhile(lambda token: token.lastgroup != "unclosed", pattern.finditer(text))
    tokens = list(islice((token for token in closed if token.lastgroup != "space"), MAX_PARTS + 1))
    if len(tokens) > MAX_PARTS:
        raise Costly(f"has more than {MAX_PARTS} parts")
    if sum(token.lastgroup == "count" for token in tokens) > MAX_VARIABLE:
        raise Costly(f"has more than {MAX_VARIABLE} parts that are repeated or optional")
    return tokens


def _read(tokens: Iterable[re.Match[str]]) -> dict[str, list[_Sequence]]:
    """Read rules; the text before the first one is the rule without a name."""
    choices: list[_Sequence] = [[]]
    rules: dict[str, list[_Sequence]] = {"": choices}
    outer: list[list[_Sequence]] = []
    for token in tokens:
        kind, text = token.lastgroup, token.group()
        if kind == "rule":
            choices, outer = [[]], []
            rules.setdefault(re.split(r"[.{\[: \t\n]", text.lstrip(" \t?!"), maxsplit=1)[0], choices)
        elif kind == "bar":
            choices.append([])
        elif kind == "open":
            outer.append(choices)
            choices = _open(choices[-1], is_optional=text == "[", depth=len(outer))
        elif kind == "close" and outer:
            choices = outer.pop()
        elif kind == "count" and choices[-1]:
            _repeat(choices[-1], text)
        elif kind in ("atom", "empty", "name"):
            choices[-1].append(_Part(text if kind == "name" else None, is_empty=kind == "empty"))
    return rules


def _open(sequence: _Sequence, *, is_optional: bool, depth: int) -> list[_Sequence]:
    if depth > MAX_GROUPS:
        raise Costly(f"has more than {MAX_GROUPS} groups in each other")
    group: list[_Sequence] = [[]]
    part = _Part(choices=group)
    sequence.append(_Part(choices=[[part]], least=0) if is_optional else part)
    return group


def _repeat(sequence: _Sequence, text: str) -> None:
    """Apply a quantifier to the last part of a sequence."""
    part = sequence[-1]
    if part.least != 1 or part.most != 1:  # (x*)* without the brackets
        part = sequence[-1] = _Part(choices=[[part]])
    if text[0] in "?*+":
        part.least, part.most = (1 if text[0] == "+" else 0), (1 if text[0] == "?" else None)
        return
    numbers = [min(int(number[:9]), 10**8) for number in _NUMBERS.findall(text)]
    if not numbers:
        return
    is_range = "," in text or ".." in text
    part.least = 0 if text.startswith("{,") else numbers[0]
    part.most = numbers[-1]
    if is_range and len(numbers) == 1 and not text.startswith("{,"):
        part.most = None


# -- parts in a row ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """The variability of a part, a sequence or a rule."""

    whole: int  # its length, if all of it is one row of variable parts; 0: something in it is fixed
    longest: int  # the longest such row in it
    is_empty: bool  # it may read nothing


_FIXED = _Form(0, 0, False)


def _refuse_long_rows(rules: _Rules) -> set[str]:
    """Raise `Costly` for too many parts of variable length in a row; return the rules that may be empty."""
    called = {name: {rule for each in rules[name] for rule in _calls(each)} for name in rules}
    order = list(_components(called))  # a rule after those it calls
    forms: dict[str, _Form] = {}
    for name in (*order, *order):  # twice, for those that call each other
        forms[name] = _form_of_any([_form_of(each, forms) for each in rules[name]])
    if max(form.longest for form in forms.values()) > MAX_IN_A_ROW:
        raise Costly(
            f"has more than {MAX_IN_A_ROW} parts in a row that may each be of several lengths, "
            "with nothing fixed between them"
        )
    return {name for name, form in forms.items() if form.is_empty}


def _form_of(sequence: _Sequence, forms: Mapping[str, _Form]) -> _Form:
    now = longest = 0
    is_fixed, is_empty = False, True
    for part in sequence:
        form = _form_of_part(part, forms)
        longest = max(longest, form.longest)
        is_empty = is_empty and form.is_empty
        if form.whole:
            now += form.whole
            longest = max(longest, now)
        elif not part.is_empty:
            now, is_fixed = 0, True
    return _Form(0 if is_fixed else now, longest, is_empty)


def _form_of_part(part: _Part, forms: Mapping[str, _Form]) -> _Form:
    if part.is_empty:
        return _Form(0, 0, True)
    inner = _FIXED
    if part.rule is not None:
        inner = forms.get(part.rule, _FIXED)
    elif part.choices:
        inner = _form_of_any([_form_of(each, forms) for each in part.choices])
    whole = inner.whole * (part.most or 1)
    if not whole and part.least != part.most:
        whole = 1
    return _Form(whole, max(inner.longest, whole), inner.is_empty or part.least == 0)


def _form_of_any(forms: Sequence[_Form]) -> _Form:
    """The form of a choice: an optional part is of variable length."""
    is_empty = any(form.is_empty for form in forms)
    whole = max(form.whole for form in forms)
    if is_empty and not whole and len(forms) > 1:
        whole = 1
    return _Form(whole, max(whole, max(form.longest for form in forms)), is_empty)


# -- rules that call themselves ----------------------------------------------------------------------------


def _refuse_ambiguous(rules: _Rules, empty: set[str]) -> None:
    """Raise `Costly` for a rule with an alternative that begins and ends with the rule itself."""
    begins = {n: {rule for s in rules[n] for rule in _edge(s, empty, last=False)} for n in rules}
    ends = {n: {rule for s in rules[n] for rule in _edge(s, empty, last=True)} for n in rules}
    left, right = _components(begins), _components(ends)
    for name, sequences in rules.items():
        for sequence in sequences:
            if _is_again(name, _edge(sequence, empty, last=False), left) and _is_again(
                name, _edge(sequence, empty, last=True), right
            ):
                raise Costly(
                    f"has a rule `{name[:40]}` that begins and ends with itself; a repetition says the same, "
                    'such as `e ::= t ("+" t)*`'
                )


def _is_again(name: str, rules: Iterable[str], components: Mapping[str, int]) -> bool:
    return any(components.get(rule) == components[name] for rule in rules)


def _calls(sequence: _Sequence) -> Iterator[str]:
    for part in sequence:
        if part.rule is not None:
            yield part.rule
        for each in part.choices:
            yield from _calls(each)


def _edge(sequence: _Sequence, empty: set[str], *, last: bool) -> Iterator[str]:
    """Rules that a sequence may begin with, or end with."""
    for part in reversed(sequence) if last else sequence:
        if part.rule is not None:
            yield part.rule
        for each in part.choices:
            yield from _edge(each, empty, last=last)
        if not _may_be_empty(part, empty):
            return


def _may_be_empty(part: _Part, empty: set[str]) -> bool:
    if part.least == 0 or part.is_empty:
        return True
    if part.rule is not None:
        return part.rule in empty
    return any(all(_may_be_empty(inner, empty) for inner in each) for each in part.choices)


def _components(edges: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Number the strongly connected components (Gabow's algorithm); reached nodes come first."""
    search = _Search(edges)
    for start in edges:
        search.visit(start)
    return search.found


class _Search:
    """A search in depth that keeps its own stack: rules may call each other in long chains."""

    def __init__(self, edges: Mapping[str, Iterable[str]]) -> None:
        self.found: dict[str, int] = {}
        self._edges = edges
        self._numbers: dict[str, int] = {}
        self._path: list[str] = []
        self._roots: list[str] = []

    def visit(self, start: str) -> None:
        """Search from a rule on, if not done yet."""
        work = [] if start in self._numbers else [self._enter(start)]
        while work:
            name, rest = work[-1]
            unseen = next((each for each in rest if self._is_unseen(each)), None)
            if unseen is not None:
                work.append(self._enter(unseen))
                continue
            work.pop()
            if self._roots[-1] == name:
                self._roots.pop()
                component = len(self.found)
                while name not in self.found:
                    self.found[self._path.pop()] = component

    def _enter(self, name: str) -> tuple[str, Iterator[str]]:
        self._numbers[name] = len(self._numbers)
        self._path.append(name)
        self._roots.append(name)
        return name, iter(self._edges[name])

    def _is_unseen(self, name: str) -> bool:
        number = self._numbers.get(name)
        if number is None:
            return name in self._edges
        while name not in self.found and self._numbers[self._roots[-1]] > number:
            self._roots.pop()
        return False
