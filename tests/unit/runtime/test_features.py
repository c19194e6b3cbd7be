"""features: against the specification's schema where it is at hand, and against runc's own answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hutch.runtime.commands.features import features
from hutch.runtime.commands.spec import default_spec

SCHEMAS = Path(__file__).parents[3] / ".." / "shared" / "specs" / "oci-runtime"


def validate(document: object, name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    if not SCHEMAS.is_dir():
        pytest.skip("the specification's schemas are not beside the clone")
    registry = referencing.Registry()
    for path in SCHEMAS.glob("*.json"):
        contents = json.loads(path.read_text())
        contents.setdefault("$schema", "http://json-schema.org/draft-04/schema#")
        contents.pop("id", None)
        registry = registry.with_resource(path.name, referencing.Resource.from_contents(contents))
    jsonschema.Draft4Validator({"$ref": name}, registry=registry).validate(document)


def test_features_are_in_the_specification_s_shape() -> None:
    validate(features(), "features-schema.json")


def test_everything_old_runc_can_is_there() -> None:
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    runc = json.loads(subprocess.run(["runc", "features"], check=True, capture_output=True, text=True).stdout)
    ours = features()
    assert set(runc["hooks"]) <= set(ours["hooks"])
    assert set(runc["mountOptions"]) - set(ours["mountOptions"]) <= {"acl", "noacl"}  # of a file system, and passed on
    for name in ("namespaces", "capabilities"):
        assert set(runc["linux"][name]) <= set(ours["linux"][name])
    for name in ("actions", "operators"):
        assert set(runc["linux"]["seccomp"][name]) <= set(ours["linux"]["seccomp"][name])


@pytest.mark.parametrize("rootless", [False, True])
def test_spec_is_runc_s_default(rootless: bool, tmp_path: Path) -> None:
    ours = json.loads(json.dumps(default_spec(rootless=rootless)))
    validate(ours, "config-schema.json")
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    subprocess.run(["runc", "spec", *["--rootless"][:rootless], "-b", str(tmp_path)], check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    theirs["process"]["capabilities"].pop("ambient", None)  # newer versions of runc have dropped it
    for document in (ours, theirs):
        document.pop("ociVersion")
        document.pop("hostname")
    assert ours == theirs
