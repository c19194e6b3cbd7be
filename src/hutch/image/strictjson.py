"""JSON from registries, images and clients, read without guessing.

Two readers of one document must not see two things (CVE-2021-41190), and a small document must
not cost much: duplicate keys, NaN, lone surrogates, deep nesting and oversize are refused.
"""

from __future__ import annotations

import json
import math
from typing import Any

from hutch.errors import InvalidConfig

MAX_DEPTH = 64


def loads(data: bytes, what: str, *, limit: int) -> Any:
    """Parse one JSON document.

    Args:
        data: untrusted bytes, UTF-8.
        what: the document's name in messages (``manifest sha256:…``).
        limit: most bytes to accept.

    Raises:
        InvalidConfig: not JSON, or one of the refusals above.
    """
    if len(data) > limit:
        raise InvalidConfig(f"{what}: larger than {limit} bytes")
    try:
        text = data.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # UnicodeEncodeError: a lone surrogate
    except RecursionError:
        raise InvalidConfig(f"{what}: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidConfig(f"{what}: {_reason(error)}") from None
    if _deeper_than(document, MAX_DEPTH):
        raise InvalidConfig(f"{what}: nested deeper than {MAX_DEPTH} levels")
    return document


def without_nulls(value: Any) -> Any:
    """Drop every member whose value is null: in image documents null means absent."""
    if isinstance(value, dict):
        return {key: without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON at byte {error.pos}: {error.msg.lower()}"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key[:64]!r} appears twice")
            seen.add(key)
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number {text[:32]} is out of range")
    return number


def _deeper_than(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit + 1):
        level = [
            member
            for value in level
            if isinstance(value, dict | list)
            for member in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
