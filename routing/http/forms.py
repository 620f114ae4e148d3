"""Reads `multipart/form-data` as it comes: fields into memory, within bounds, one file into what takes it.

No name that a client sends becomes a path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from routing.errors import InvalidRequest, UnsupportedMediaType

MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 * 2**10  # of a field's value
MAX_HEAD_BYTES = 4 * 2**10  # of the headers of a part
MAX_FILENAME = 255  # characters
FORM_OVERHEAD_BYTES = 2**20  # of what a form has beside its file, at most
_FORM = b"multipart/form-data"
_SILENT = logging.Logger("forms", logging.CRITICAL)  # the parser's: with wrong forms anybody could fill a log


class Form:
    """One form that is being read. `feed` takes what came, `finish` its end."""

    def __init__(self, content_type: str | None, sink: Callable[[bytes], object]) -> None:
        """`sink` takes the parts of the file's content. Raises `UnsupportedMediaType`."""
        kind, options = parse_options_header((content_type or "").encode("latin-1"))
        boundary = options.get(b"boundary")
        if kind != _FORM or not boundary or len(boundary) > 200:
            raise UnsupportedMediaType("The body must be sent as `content-type: multipart/form-data`.")
        self.fields: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}  # of fields that may come several times: their names end in []
        self.filename: str | None = None  # as the client calls the file; None: none has come
        self._sink = sink
        self._is_whole = False
        self._head: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()  # of a header, then the value of a field
        self._field = ""
        self._in_file = False
        self._parts = 0
        self._boundary, self._edge, self._boundaries = b"\r\n--" + boundary, b"", 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._add(self._name, data[start:end]),
                "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_head,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._end_all,
            },
        )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> None:
        """Read on. Raises `InvalidRequest`, and what the sink raises."""
        self._count_boundaries(data)
        try:
            self._parser.write(data)
        except FormParserError:
            raise _wrong("The form cannot be read.") from None

    def finish(self) -> None:
        """Note that nothing more comes. Raises `InvalidRequest` where the form is not whole."""
        if not self._is_whole:
            raise _wrong("The form is cut off.")

    def _count_boundaries(self, data: bytes) -> None:
        """Raise `InvalidRequest` for too many: one that ends no part costs as much as a thousand bytes."""
        inside = len(self._boundary) - 1
        edge = self._edge + data[:inside]
        self._boundaries += data.count(self._boundary) + edge.count(self._boundary)
        self._edge = (edge if len(data) < inside else data)[-inside:]
        if self._boundaries > 2 * MAX_FIELDS:
            raise _wrong("The form has its boundary too often.")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise _wrong(f"A form has at most {MAX_FIELDS} fields.")
        self._head, self._in_file = {}, False
        self._name.clear()
        self._value.clear()

    def _add(self, to: bytearray, data: bytes) -> None:
        to += data
        if len(self._name) + len(self._value) + sum(map(len, self._head.values())) > MAX_HEAD_BYTES:
            raise _wrong("The headers of a field are too long.")

    def _end_header(self) -> None:
        self._head[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()
        if len(self._head) > MAX_FIELDS:
            raise _wrong("A field has too many headers.")

    def _end_head(self) -> None:
        _, options = parse_options_header(self._head.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise _wrong("A field of the form has no name.")
        self._field = name.decode(errors="replace")
        if self._field == "file":
            if self.filename is not None:
                raise _wrong("The form has two files.")
            self._in_file = True
            told = options.get(b"filename", b"").decode(errors="replace")
            self.filename = "".join(filter(str.isprintable, told))[:MAX_FILENAME] or "file"

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._sink(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise _wrong("A field of the form is too long.")

    def _end(self) -> None:
        if self._in_file:
            return
        name, value = self._field, bytes(self._value).decode(errors="replace")
        if name.endswith("[]"):
            self.lists.setdefault(name, []).append(value)
        elif name in self.fields:
            raise _wrong("The form has a field twice.")
        else:
            self.fields[name] = value

    def _end_all(self) -> None:
        self._is_whole = True


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_form")
