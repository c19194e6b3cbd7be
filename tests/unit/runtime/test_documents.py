"""hutch.runtime.documents against the public json module."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import InvalidConfig
from hutch.runtime import documents

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES, st.sampled_from(["", "  ", "\t"]))
def test_what_is_dumped_is_read_back_by_us_and_by_json(value: object, indent: str) -> None:
    text = documents.dump(value, indent)
    assert json.loads(text) == value
    assert documents.parse(text, source="text") == value
    if indent:
        assert text == json.dumps(value, indent=indent, ensure_ascii=False)
    else:
        assert text == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a":1,"a":2}', "repeated key 'a'"),
        ("[NaN]", "not a JSON number: NaN"),
        ("[-Infinity]", "not a JSON number: -Infinity"),
        ('{"a"', "line 1 column 5"),
        ("{} trailing", "extra data"),
        ("", "expecting value"),
        ("9" * 5000, "integer beyond 64 bits"),
        (str(2**64), "integer beyond 64 bits"),
        ("[1e999]", "number beyond a double"),
        ("[" * 200_000, "nested too deeply"),
        ('"tab\tin text"', "control character"),
    ],
)
def test_b07_a_document_that_parsers_read_differently_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint) as caught:
        documents.parse(text, source="config.json")
    assert str(caught.value).startswith("config.json: ")


def test_a_document_must_be_an_object_in_utf_8() -> None:
    with pytest.raises(InvalidConfig, match="not UTF-8 at byte 1"):
        documents.parse_object(b"{\xff}", source="x")
    with pytest.raises(InvalidConfig, match="not a JSON object"):
        documents.parse_object(b"[]", source="x")
    assert documents.parse_object(b'\xef\xbb\xbf {"a": 1}\n', source="x") == {"a": 1}


def test_reading_is_bounded_and_never_waits(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b" " * 65)
    with pytest.raises(InvalidConfig, match="more than 64 bytes"):
        documents.read_object(str(tmp_path / "big"), 64)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidConfig, match="not a regular file"):
        documents.read_object(str(tmp_path / "fifo"))
    with pytest.raises(FileNotFoundError):
        documents.read_object(str(tmp_path / "absent"))


def test_undecodable_bytes_survive_a_round_trip() -> None:
    text = os.fsdecode(b"name-\xff")
    written = documents.dump_bytes({"a": text})
    assert written == rb'{"a":"name-\udcff"}'
    assert documents.parse_object(written, source="x") == {"a": text}
    with pytest.raises(TypeError):
        documents.dump({"a": float("inf")})
    with pytest.raises(TypeError):
        documents.dump({1: "a"})
