"""The TypedDicts name exactly the fields that the OCI's JSON schemas name."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from hutch.spec import runtime

SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "specs" / "oci-runtime"
NOT_LINUX = {"solaris", "windows", "vm", "zos", "freebsd"}

pytestmark = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the OCI schemas are not beside this checkout")


def load(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


def resolve(schema: dict[str, Any], document: str) -> tuple[dict[str, Any], str]:
    """Follow $ref (and merge anyOf/allOf, which the schemas use for inheritance)."""
    if "$ref" in schema:
        target, _, pointer = schema["$ref"].partition("#")
        document = target or document
        node: Any = load(document)
        for part in pointer.strip("/").split("/"):
            node = node[part]
        return resolve(node, document)
    merged = dict(schema)
    for part in [*schema.get("allOf", ()), *schema.get("anyOf", ())]:
        inner, document = resolve(part, document)
        merged["properties"] = {**merged.get("properties", {}), **inner.get("properties", {})}
        merged["required"] = [*merged.get("required", ()), *inner.get("required", ())]
    return merged, document


def unwrap(hint: Any) -> Any:
    while typing.get_origin(hint) is typing.Required:
        hint = typing.get_args(hint)[0]
    return hint


def compare(typed: Any, schema: dict[str, Any], document: str, where: str) -> list[str]:
    """List every difference in names or nesting, recursively."""
    schema, document = resolve(schema, document)
    hint = unwrap(typed)
    origin = typing.get_origin(hint)
    if origin is list:
        return compare(typing.get_args(hint)[0], schema["items"], document, f"{where}[]")
    if origin is dict:
        inner = schema.get("additionalProperties")
        value = typing.get_args(hint)[1]
        return compare(value, inner, document, f"{where}{{}}") if isinstance(inner, dict) else []
    if not typing.is_typeddict(hint):
        wanted = {"string": str, "integer": int, "boolean": bool}.get(schema.get("type", ""))
        have = str if origin is typing.Literal else hint
        return [] if wanted is have else [f"{where}: {have} is not {schema.get('type')}"]
    if "patternProperties" in schema:
        return [f"{where}: a map in the schema"]
    hints = typing.get_type_hints(hint, include_extras=True)
    properties = {name: inner for name, inner in schema["properties"].items() if name not in NOT_LINUX}
    found = [f"{where}: {name}" for name in sorted(set(hints) ^ set(properties))]
    for name, inner in properties.items():
        if name not in hints:
            continue
        required = typing.get_origin(hints[name]) is typing.Required
        if name in schema.get("required", ()) and not required:
            found.append(f"{where}.{name}: required by the schema")
        found += compare(hints[name], inner, document, f"{where}.{name}")
    return found


@pytest.mark.parametrize(
    ("typed", "document"),
    [
        (runtime.Spec, "config-schema.json"),
        (runtime.State, "state-schema.json"),
        (runtime.Features, "features-schema.json"),
    ],
)
def test_field_names_are_the_schemas(typed: Any, document: str) -> None:
    assert compare(typed, load(document), document, typed.__name__) == []


def test_the_comparison_finds_a_missing_and_a_wrong_field() -> None:
    wrong = types.new_class("Wrong", (), {})
    typed = typing.TypedDict("typed", {"ociVersion": int, "extra": str})  # type: ignore[operator]
    found = compare(typed, load("state-schema.json"), "state-schema.json", "State")
    assert "State: extra" in found
    assert "State: pid" in found
    assert "State.ociVersion: required by the schema" in found
    assert compare(wrong, {"type": "string"}, "state-schema.json", "x") != []
