"""Does a line say what failed, and nothing that its reader must not see?"""

from __future__ import annotations

import pytest

from engines.words import MAX_LENGTH, blames_machine, in_a_line, without_paths, words_of

NO_COMPILER = (
    "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')"
)
NO_HEADERS = """C++ compile error

Command:
g++ /tmp/x/main.cpp -D TORCH -o /tmp/x/main.so

Output:
/tmp/x/main.cpp:2:10: fatal error: Python.h: No such file or directory
    2 | #include <Python.h>
      |          ^~~~~~~~~~
compilation terminated.
"""


class InductorError(Exception):
    """As torch's: the message names the inner exception, and goes on with advice."""


def test_a_missing_compiler_is_named() -> None:
    words = words_of(InductorError(f"{NO_COMPILER}\n\nSet TORCHDYNAMO_VERBOSE=1 for the stack trace"))
    assert words == f"InductorError: {NO_COMPILER}"
    assert blames_machine(words)


def test_missing_headers_are_named_out_of_the_middle_of_a_compilers_output() -> None:
    words = words_of(InductorError(NO_HEADERS))
    assert "fatal error: Python.h: No such file or directory" in words
    assert blames_machine(words)


def test_the_root_is_told_and_not_what_was_raised_from_it() -> None:
    try:
        try:
            raise KeyError("weight")
        except KeyError as error:
            raise RuntimeError("the engine failed") from error
    except RuntimeError as error:
        assert words_of(error) == "KeyError: 'weight'"


@pytest.mark.parametrize("error", [RuntimeError(), RuntimeError("  \n ")])
def test_an_error_without_a_message_is_its_type(error: Exception) -> None:
    assert words_of(error) == "RuntimeError"


def test_a_line_is_bounded_and_steers_no_terminal() -> None:
    line = in_a_line("\x1b[31mred\x07\r\nnext\x00" + "x" * 1000)
    assert line.startswith("[31mred next x") and len(line) == MAX_LENGTH and line.isprintable()


@pytest.mark.parametrize(
    "words",
    [
        "OSError: [Errno 28] No space left on device",
        f"RuntimeError: Worker failed with error '{NO_COMPILER}",
        "BackendCompilerFailed: backend='inductor' raised:",
    ],
)
def test_what_no_adapter_causes_is_known(words: str) -> None:
    assert blames_machine(words)


@pytest.mark.parametrize("words", ["", "KeyError: 5", "RuntimeError: shape mismatch", "its process ended"])
def test_what_an_adapter_may_cause_is_not_the_machines_fault(words: str) -> None:
    assert not blames_machine(words)


def test_paths_and_addresses_are_left_out() -> None:
    told = without_paths("no file /srv/state/a.bin, from s3://bucket/a?key=1 as in ~/notes; and/or 3/4")
    assert told == "no file <path>, from <path> as in <path>; and/or 3/4"
