"""What is a source of a version, and is it the same once it is read again?"""

from __future__ import annotations

import pytest

from routing.catalog.sources import Folder, Remote, Source, Upload, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("upload:0123abc", Upload("0123abc")),
        ("/srv/a", Folder("/srv/a")),
        ("/srv/a://b", Folder("/srv/a://b")),
        ("s3://srv/a", Remote("s3://srv/a")),
        ("bento://support:1", Remote("bento://support:1")),
        ("https://host/a.tgz?sig=upload:/srv", Remote("https://host/a.tgz?sig=upload:/srv")),
    ],
)
def test_a_source_is_an_upload_a_url_or_a_folder_and_its_text_gives_it_back(
    text: str, source: Source
) -> None:
    assert parse_source(text) == source
    assert str(source) == text


def test_a_folder_has_one_value_however_it_is_written() -> None:
    assert parse_source("file:///srv/a") == parse_source("/srv/a")
