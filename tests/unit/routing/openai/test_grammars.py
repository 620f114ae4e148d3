"""Which grammars and regular expressions would keep an engine busy? Those, and none that people write."""

from __future__ import annotations

import time

import pytest

from routing.openai.grammars import (
    MAX_GROUPS,
    MAX_IN_A_ROW,
    MAX_PARTS,
    MAX_VARIABLE,
    Costly,
    check_grammar,
    check_regex,
)

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]*)) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws  # a comment with a "quote
ws     ::= ([ \t\n] ws)?
"""
CALCULATOR = """
?start: sum
      | NAME "=" sum    -> assign_var
?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub
?product: atom
    | product "*" atom  -> mul
?atom: NUMBER           -> number
     | "-" atom         -> neg
     | NAME             -> var
     | "(" sum ")"
%import common.CNAME -> NAME
%import common.NUMBER
%ignore /[ \\t]+/
"""
SQL = """
root ::= select_statement
select_statement ::= "SELECT " column " from " table " where " condition
column ::= "col_1 " | "col_2 "
table ::= "table_1 " | "table_2 "
condition ::= column "= " number
number ::= "1 " | "2 "
"""


@pytest.mark.parametrize(
    "grammar",
    [
        *(JSON, CALCULATOR, SQL),
        'root ::= root "a" | "a"',
        'root ::= "a" root "b" | "c"',
        'root ::= "+" root root | [0-9]+',
        'root ::= expr\nexpr ::= term ("+" term)*\nterm ::= num | "(" expr ")"\nnum ::= [0-9]+',
        'root ::= list\nlist ::= "(" (list | [a-z]+)* ")"',
        *("", "no grammar", 'root ::= "not closed', 'root ::= "a" ) | (', "root ::= unknown"),
    ],
)
def test_what_people_write_is_taken_and_what_is_no_grammar_left_to_the_engine(grammar: str) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize(
    "rules",
    [
        'root ::= root "+" root | "a"',
        'root ::= root root | "a"',
        'root ::= root | "a"',
        'root ::= (root "b" root | "c")',
        'root ::= e root e root\ne ::= "x"?',
        'root ::= x\nx ::= y | "a"\ny ::= x | "b"',
        'root ::= x "+" x\nx ::= root | "a"',
        'start: e\ne: e "+" e | /[0-9]+/',
        '?start: sum\n?sum: sum ["+"] sum | "a"',
    ],
)
def test_a_rule_that_begins_and_ends_with_itself_is_refused(rules: str) -> None:
    with pytest.raises(Costly, match="begins and ends with itself"):
        check_grammar(rules)


VARIABLE = ["[a-z]*", "[a-z]+", "a?", "a{1,3}", "(a|b?)", "(?:ab?)?", r"\w{2,}", "(a|)"]


@pytest.mark.parametrize("part", VARIABLE)
def test_too_many_parts_in_a_row_are_refused(part: str) -> None:
    check_regex(part * MAX_IN_A_ROW)
    check_regex((part * MAX_IN_A_ROW + "-") * 4)
    for text in (part * (MAX_IN_A_ROW + 1), f"x({part}){{{MAX_IN_A_ROW + 1}}}y"):
        with pytest.raises(Costly, match=f"more than {MAX_IN_A_ROW} parts in a row"):
            check_regex(text)


@pytest.mark.parametrize(
    "rules",
    [
        'root ::= "a" {} "b"\no ::= "x"?',
        'root ::= "a" {} "b"\no ::= "" | "x"',
        'root ::= "a" {} "b"\no ::= p\np ::= [a-z]+ | "1"',
        'start: "a" {} "b"\no: ["x"]',
    ],
)
def test_so_are_they_where_they_stand_in_other_rules(rules: str) -> None:
    check_grammar(rules.format("o " * MAX_IN_A_ROW))
    with pytest.raises(Costly, match="in a row"):
        check_grammar(rules.format("o " * (MAX_IN_A_ROW + 1)))


@pytest.mark.parametrize(
    "regex",
    [
        r"-?\d*\.?\d+([eE][+-]?\d+)?",
        r"^[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$]+)*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
        r"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.|$)){4}",
        r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})",
        *("[a-z]{0,5000}", "(abc|abd|[a-f]{3}){500}", r"((\s?\d){0,20}x)+", "[", "(", ")", "*", "a{", "[]"),
    ],
)
def test_regular_expressions_of_real_use_are_taken(regex: str) -> None:
    check_regex(regex)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a?b" * (MAX_VARIABLE + 1), f"more than {MAX_VARIABLE} parts"),
        ("[a]" * (MAX_PARTS + 1), f"more than {MAX_PARTS} parts"),
        ("(" * (MAX_GROUPS + 1), f"more than {MAX_GROUPS} groups"),
    ],
)
def test_what_takes_long_to_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(Costly, match=words):
        check_regex(text)


SIZE = 65536
LONG = {
    "chain": "\n".join(f"r{i} ::= r{i + 1}" for i in range(2000)),
    "circle": "\n".join(f'r{i} ::= "a" r{(i + 1) % 1000} "b"' for i in range(1000)),
    "backwards": "\n".join(f"r{i} ::= r{i - 1}" for i in range(2000)),
    "quotes": 'r ::= "' + '\\"' * (SIZE // 2),
    "brackets": "r ::= " + "[" * SIZE,
    "angles": "r: " + "<" * SIZE,
    "slashes": "r: " + "/ " * (SIZE // 2),
    "alternatives": "r ::= " + "|r " * (SIZE // 3),
    "groups": "r ::= " + ("(" * MAX_GROUPS + '"a"' + ")" * MAX_GROUPS) * 60,
    "spaces": "r ::= a" + " " * SIZE,
    "names": "a " * (SIZE // 2) + "::= b",
    "one name": "a" * SIZE,
    "regex": "[" * SIZE + "(?P<a" * (SIZE // 5),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_reading_never_takes_long(text: str) -> None:
    began_s = time.process_time()
    for check in (check_grammar, check_regex):
        try:
            check(text)
        except Costly:
            continue
    assert time.process_time() - began_s < 1.0, "it takes 0.05 s at most on a slow machine"
