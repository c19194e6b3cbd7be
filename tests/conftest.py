"""Fixtures of the whole suite. What they build on is in tests/support; each is made when first asked for."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests.support import cgroups, files, host, images, leaks, registries, session, users
from tests.support.docker import Docker, dockerd
from tests.support.engines import end_engine
from tests.support.podman import Podman
from tests.support.podman import podman as private_podman

FORKING = ("/tests/integration/linux/", "/tests/integration/oci/", "/tests/integration/runtime/")
LEAK_CHECKED = ("/tests/integration/", "/tests/conformance/", "/tests/e2e/")


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes says more about the machine's other work than about us.
    hypothesis.settings.register_profile("hutch", deadline=None)
    hypothesis.settings.load_profile("hutch")
    session.adopt_orphans()
    private = session.enter_private_mounts()
    session.announce()
    session.sweep()
    config.stash[_PRIVATE] = private


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what forks this very process, before a server of the session has a thread in it."""
    items.sort(key=lambda item: not any(part in str(item.path) for part in FORKING))


def pytest_unconfigure() -> None:
    leaks.reap()
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
        try:
            yield roots
        finally:
            end_engine(roots.state)


@pytest.fixture
def cgroup_parent(leaks_nothing: None) -> Iterator[str]:
    """A cgroup of the test's own, as a `cgroupsPath` prefix ("/hutch-tests-PID/N"), in every hierarchy; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make cgroups")
    with cgroups.parent() as path:
        yield path


@pytest.fixture(scope="session")
def session_dir() -> Iterator[str]:
    """A directory for what the session keeps; 0700."""
    with files.private_directory(f"session-{os.getpid()}") as path:
        yield path


def _registry(session_dir: str, name: str, *programs: str) -> Iterator[registries.Registry]:
    for program in ("docker-registry", "openssl", *programs):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    directory = f"{session_dir}/registry-{name}"
    os.mkdir(directory)
    kinds = {
        "plain": registries.plain,
        "basic": registries.with_passwords,
        "token": registries.with_tokens,
        "tls": registries.with_tls,
    }
    with kinds[name](directory) as running:
        yield running


@pytest.fixture(scope="session")
def registry(session_dir: str) -> Iterator[registries.Registry]:
    """A real registry on loopback, plain HTTP, open to everybody; one for the session, so choose names of your own."""
    yield from _registry(session_dir, "plain")


@pytest.fixture(scope="session")
def registry_basic(session_dir: str) -> Iterator[registries.Registry]:
    """A real registry that wants a name and a password."""
    yield from _registry(session_dir, "basic", "htpasswd")


@pytest.fixture(scope="session")
def registry_token(session_dir: str) -> Iterator[registries.Registry]:
    """A real registry with a token server (`registry_token.tokens`)."""
    yield from _registry(session_dir, "token")


@pytest.fixture(scope="session")
def registry_tls(session_dir: str) -> Iterator[registries.Registry]:
    """A real registry over HTTPS; its authority's certificate is `registry_tls.ca`."""
    yield from _registry(session_dir, "tls")


def _image(make: Callable[[], images.Image], *programs: str, root: bool = False) -> images.Image:
    if images.PREBUILT:
        return make()
    if root and os.geteuid() != 0:
        pytest.skip("needs root to make the image")
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if not images.is_static(shutil.which("busybox") or ""):
        pytest.skip("busybox is not static (Debian's package busybox-static)")
    return make()


@pytest.fixture(scope="session")
def busybox_image() -> images.Image:
    """busybox and little else, by buildah, as an OCI layout."""
    return _image(images.busybox, "buildah", "busybox", root=True)


@pytest.fixture(scope="session")
def schema2_image() -> images.Image:
    """busybox in Docker's manifest format, schema 2."""
    return _image(images.busybox_schema2, "buildah", "skopeo", "busybox", root=True)


@pytest.fixture(scope="session")
def multi_platform_image() -> images.Image:
    """An index for amd64, arm64/v8, arm/v7 and arm/v6, by buildah; its command prints /etc/platform."""
    return _image(images.multi_platform, "buildah", "busybox", root=True)


@pytest.fixture(scope="session")
def layered_image() -> images.Image:
    """Layers with links, whiteouts, an opaque directory, extended attributes and odd names, by umoci."""
    return _image(images.layered, "buildah", "umoci", "busybox", root=True)


@pytest.fixture(scope="session")
def debian_image() -> images.Image:
    """A minimal Debian, by mmdebstrap (40 s when it is not in the cache)."""
    return _image(images.debian, "buildah", "mmdebstrap", "apt-get", "busybox", root=True)


@pytest.fixture(scope="session")
def hutch_installed() -> Iterator[users.Installation]:
    """hutch installed where every user can run it: `.hutch`, `.hutch_oci` and `.python` are paths."""
    if users.readable_python() is None:
        pytest.skip("no python of this version that every user can run")
    with users.installation() as installed:
        yield installed


def _user(installed: users.Installation, *, subids: bool) -> Iterator[users.OrdinaryUser]:
    if reason := host.missing(("userns", "program:setpriv", "program:unshare")):
        pytest.skip(reason)
    if os.geteuid() != 0 and subids != (host.missing(("subids",)) == ""):
        pytest.skip(f"this user has {'no ' if subids else ''}subordinate ids")
    with users.ordinary_user(installed, subids=subids) as user:
        try:
            yield user
        finally:
            end_engine(f"{user.runtime_dir}/hutch")


@pytest.fixture
def ordinary_user(leaks_nothing: None, hutch_installed: users.Installation) -> Iterator[users.OrdinaryUser]:
    """A user without privileges and with subordinate ids; `.run([…])`, `.popen([…])`, `.home`, `.hutch`."""
    if reason := host.missing(("program:newuidmap",)):
        pytest.skip(reason)
    yield from _user(hutch_installed, subids=True)


@pytest.fixture
def single_id_user(leaks_nothing: None, hutch_installed: users.Installation) -> Iterator[users.OrdinaryUser]:
    """A user without privileges and without subordinate ids."""
    yield from _user(hutch_installed, subids=False)


@pytest.fixture(scope="session")
def docker(session_dir: str) -> Iterator[Docker]:
    """A private dockerd (`docker("run", …)`, `docker.env`), its containers in a cgroup of this session."""
    if reason := host.missing(("root", "program:dockerd", "program:docker", "program:containerd")):
        pytest.skip(reason)
    directory = f"{session_dir}/docker"
    os.mkdir(directory)
    with cgroups.parent(sweep=True) as path, dockerd(directory, f"--cgroup-parent={path}") as running:
        yield running


@pytest.fixture
def podman(leaks_nothing: None) -> Iterator[Podman]:
    """A podman with storage and cgroups of its own; `dataclasses.replace(podman, runtime=…)` for another runtime."""
    if reason := host.missing(("root", "program:podman")):
        pytest.skip(reason)
    with files.private_directory(f"{os.getpid()}-podman") as directory, private_podman(directory) as found:
        yield found
