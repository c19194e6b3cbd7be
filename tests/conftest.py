"""Fixtures of the whole suite. What they build on is in tests/support; each is made when first asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest

from tests.support import cgroups, files, host, leaks, session

LEAK_CHECKED = ("/tests/integration/", "/tests/conformance/", "/tests/e2e/")


def pytest_configure(config: pytest.Config) -> None:
    session.adopt_orphans()
    private = session.enter_private_mounts()
    session.announce()
    config.stash[_PRIVATE] = private


def pytest_unconfigure() -> None:
    session.retire()


def pytest_report_header(config: pytest.Config) -> str:
    mounts = "a mount namespace of its own" if config.stash[_PRIVATE] else "the machine's mount namespace"
    version = "v2" if host.is_cgroup2() else "v1 or hybrid"
    return f"host: Linux {os.uname().release}, cgroup {version}, uid {os.geteuid()}, {mounts}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        if reason := host.missing(mark.args):
            pytest.skip(reason)


_PRIVATE = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def leaks_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves anything of `leaks.inventory` behind. It is the first fixture up and the last down."""
    path = str(request.node.path)
    if not any(part in path for part in LEAK_CHECKED) and not request.node.get_closest_marker("leaks_nothing"):
        yield
        return
    before = leaks.inventory()
    yield
    if left := leaks.difference(before):
        pytest.fail(f"left behind (+) or taken away (-):\n{left}", pytrace=False)


@dataclasses.dataclass(frozen=True)
class Roots:
    """Where one test's engine keeps everything: a 0700 directory of its own."""

    base: str
    data: str
    state: str

    @property
    def options(self) -> list[str]:
        """`hutch`'s global options for these directories."""
        return ["--root", self.data, "--state", self.state]


@pytest.fixture
def tmp_root(leaks_nothing: None) -> Iterator[Roots]:
    """A private data root and state directory; removing them fails if something is still mounted there."""
    with files.private_directory(f"{os.getpid()}-root") as base:
        roots = Roots(base, f"{base}/data", f"{base}/state")
        for path in (roots.data, roots.state):
            os.mkdir(path, 0o700)
        yield roots


@pytest.fixture
def cgroup_parent(leaks_nothing: None) -> Iterator[str]:
    """A cgroup of the test's own, as a `cgroupsPath` prefix ("/hutch-tests-PID/N"), in every hierarchy; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make cgroups")
    with cgroups.parent() as path:
        yield path
