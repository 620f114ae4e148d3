"""Forms: read as they come, cut anywhere; whatever is wrong with one is a 400, and nothing is kept of it."""

from __future__ import annotations

import contextlib
import random

import pytest

from routing.errors import InvalidRequest, UnsupportedMediaType
from routing.http.forms import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES, Form

TYPE = "multipart/form-data; boundary=cut"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--cut\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def read(*chunks: bytes, content_type: str | None = TYPE) -> tuple[Form, bytes]:
    content = bytearray()
    form = Form(content_type, content.extend)
    for chunk in chunks:
        form.feed(chunk)
    form.finish()
    return form, bytes(content)


WHOLE = (
    part("purpose", b"batch")
    + part("file", b"line\r\n--cu\n" * 9, '; filename="../../x.jsonl"')
    + b"--cut--\r\n"
)


def test_a_form_is_read_alike_wherever_it_is_cut() -> None:
    cuts = random.Random(29)
    for _ in range(200):
        middle = cuts.randrange(len(WHOLE))
        form, content = read(WHOLE[:middle], WHOLE[middle:])
        assert (form.fields, content) == ({"purpose": "batch"}, b"line\r\n--cu\n" * 9)
    assert read(*(WHOLE[i : i + 1] for i in range(len(WHOLE))))[1] == b"line\r\n--cu\n" * 9
    assert read(WHOLE)[0].filename == "../../x.jsonl", "told as it came; it names nothing"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=cut",
        f"multipart/form-data; boundary={'x' * 201}",
    ],
)
def test_what_is_no_form_is_no_form(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(WHOLE, content_type=content_type)


def test_a_field_whose_name_says_so_may_come_several_times() -> None:
    form, _ = read(part("kinds[]", b"1") + part("kinds[]", b"2") + WHOLE)
    assert (form.fields, form.lists) == ({"purpose": "batch"}, {"kinds[]": ["1", "2"]})


WRONG = {
    "cut off": WHOLE[:-9],
    "empty": b"",
    "no boundary": b"purpose=batch",
    "another boundary": WHOLE.replace(b"--cut", b"--tuc"),
    "two files": part("file", b"1", '; filename="a"') + WHOLE,
    "a field twice": part("purpose", b"x") + WHOLE,
    "no name": b"--cut\r\ncontent-type: text/plain\r\n\r\nx\r\n--cut--\r\n",
    "a long field": part("purpose", b"x" * (MAX_FIELD_BYTES + 1)) + b"--cut--\r\n",
    "many fields": part("x", b"") * (MAX_FIELDS + 1) + b"--cut--\r\n",
    "a long header": part("purpose", b"x", f'; more="{"x" * MAX_HEAD_BYTES}"') + b"--cut--\r\n",
    "many headers": b"--cut\r\n" + b"a: b\r\n" * 5000 + b"\r\nx\r\n--cut--\r\n",
    "its boundary all over a file": part("file", b"\r\n--cutX" * (2 * MAX_FIELDS + 1)) + b"--cut--\r\n",
    "a header without a colon": b"--cut\r\nnothing\r\n\r\nx\r\n--cut--\r\n",
    "a bad byte in a header": b"--cut\r\nna\x00me: x\r\n\r\nx\r\n--cut--\r\n",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_form_that_is_wrong_is_refused_and_fills_no_log(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidRequest):
        read(body)
    assert caplog.records == []


def test_what_follows_the_end_of_a_form_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    form, content = read(WHOLE, b"\r\nmore" * 99, WHOLE)
    assert (form.fields, content) == ({"purpose": "batch"}, b"line\r\n--cu\n" * 9)
    assert caplog.records == []


def test_a_file_with_its_boundary_inside_costs_no_more_than_any_other() -> None:
    form = Form(TYPE, lambda _: None)
    form.feed(part("file", b""))
    with pytest.raises(InvalidRequest):
        for _ in range(2 * MAX_FIELDS + 1):  # cut anywhere
            form.feed(b"\r\n--cu")
            form.feed(b"t-X")
    form, content = read(part("file", b"\r\n--cutX" * 9), WHOLE[:0], b"--cut--\r\n")
    assert content == b"\r\n--cutX" * 9


def test_no_bytes_at_all_make_anything_but_a_refusal() -> None:
    chances = random.Random(29)
    for _ in range(2000):
        body = bytearray(WHOLE)
        for _ in range(chances.randrange(1, 6)):
            at = chances.randrange(len(body))
            body[at : at + chances.randrange(3)] = chances.randbytes(chances.randrange(4))
        with contextlib.suppress(InvalidRequest):
            read(bytes(body))
