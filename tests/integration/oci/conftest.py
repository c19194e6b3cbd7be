"""Runtimes for the tests of hutch-oci: ours, and runc beside it where behaviour is compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import Roots
from tests.support import oci


@pytest.fixture
def runtime(tmp_root: Roots, cgroup_parent: str) -> Iterator[oci.Runtime]:
    """Our runtime."""
    with oci.runtime(tmp_root.base, cgroup_parent) as found:
        yield found


@pytest.fixture(params=["hutch-oci", "runc"])
def either(request: pytest.FixtureRequest, tmp_root: Roots, cgroup_parent: str) -> Iterator[oci.Runtime]:
    """Ours and runc in turn: a test that fails with runc is wrong about runc."""
    if request.param == "runc" and not shutil.which("runc"):
        pytest.skip("runc is not installed")
    with oci.runtime(tmp_root.base, cgroup_parent, "" if request.param == "hutch-oci" else request.param) as found:
        yield found
