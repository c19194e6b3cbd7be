"""Containers made in this process by `hutch.runtime.create`, of a busybox bundle that a test may spoil as it likes."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hutch.errors import HutchError
from hutch.runtime.container import Container
from hutch.runtime.create import create
from tests.conftest import Roots
from tests.support import leaks, oci


@dataclasses.dataclass
class Result:
    """What one container did.

    Attributes:
        status: its exit status.
        out, err: what it wrote.
        warnings: what create warned of.
    """

    status: int
    out: str
    err: str
    warnings: list[str]


class Box:
    """One bundle and the containers made of it."""

    def __init__(self, roots: Roots, cgroup: str) -> None:
        self.cgroup = cgroup
        self.base, self.state_dir = roots.base, roots.state
        self.bundle = oci.make_bundle(f"{roots.base}/bundle", cgroup=cgroup)
        self.spec: Any = self.bundle.spec
        self.rootfs = self.bundle.own_rootfs()
        self.warnings: list[str] = []
        self.living: list[Container] = []

    @property
    def linux(self) -> Any:
        """The spec's linux object."""
        return self.spec["linux"]

    @property
    def process(self) -> Any:
        """The spec's process."""
        return self.spec["process"]

    def mount(self, destination: str, kind: str, *options: str, source: str = "") -> None:
        """Add a mount."""
        entry: dict[str, Any] = {"destination": destination, "type": kind, "options": list(options)}
        self.spec["mounts"].append({**entry, "source": source or kind})

    def user_namespace(self, base: int = 1_000_000, size: int = 65536) -> None:
        """Give the container a user namespace; its root file system is open to it."""
        self.linux["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            self.linux[name] = [{"containerID": 0, "hostID": base, "size": size}]
        for path in (self.base, f"{self.base}/bundle", self.state_dir):
            os.chmod(path, 0o755)

    def create(self, *args: str, **options: Any) -> Container:
        """Create a container; the fixture deletes it."""
        if args:
            self.process["args"] = list(args)
        self.linux["cgroupsPath"] = f"{self.cgroup}{len(self.living)}"
        container = create(
            self.spec,
            container_id=f"box{len(self.living)}",
            bundle=self.bundle.path,
            state_dir=self.state_dir,
            warn=self.warnings.append,
            **options,
        )
        self.living.append(container)
        return container

    def run(self, *args: str, **options: Any) -> Result:
        """Create, start and wait."""
        out, err = f"{self.base}/out", f"{self.base}/err"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        fds = (os.open("/dev/null", os.O_RDONLY), os.open(out, flags, 0o666), os.open(err, flags, 0o666))
        try:
            container = self.create(*args, **{"stdio": fds, **options})
        finally:
            for fd in fds:
                os.close(fd)
        container.start()
        status = container.wait()
        return Result(status, Path(out).read_text(), Path(err).read_text(), self.warnings)

    def sh(self, script: str, **options: Any) -> Result:
        """Run a shell script."""
        return self.run("sh", "-c", script, **options)

    def fails(self, *args: str, **options: Any) -> str:
        """The message create fails with; nothing of the container may be left."""
        with pytest.raises(HutchError) as caught:
            self.create(*args, **options)
        assert os.listdir(self.state_dir) == []
        return str(caught.value)


@pytest.fixture
def box(tmp_root: Roots, cgroup_parent: str) -> Iterator[Box]:
    """A bundle of busybox."""
    found = Box(tmp_root, f"{cgroup_parent}/box")
    yield found
    for container in reversed(found.living):  # the first one's pid namespace may hold the others, our zombies
        with container:
            container.delete(force=True)
        leaks.reap()


@pytest.fixture
def canary(tmp_root: Roots) -> Iterator[Callable[[], str]]:
    """A directory of the host beside the bundle that nothing may touch; it is compared at the end."""
    path = Path(tmp_root.base, "canary")
    path.mkdir()
    (path / "file").write_text("untouched")
    before = _look(path)
    yield lambda: str(path)
    assert _look(path) == before


def _look(path: Path) -> list[tuple[str, int, int, int, bytes]]:
    found = []
    for entry in sorted([path, *path.rglob("*")]):
        status = entry.lstat()
        content = entry.read_bytes() if entry.is_file() else b""
        found.append((str(entry), status.st_mode, status.st_uid, status.st_mtime_ns, content))
    return found


@pytest.fixture
def console() -> Iterator[tuple[int, Callable[[], int]]]:
    """(a connected socket to give to create, a function that receives the terminal from the other end)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def receive() -> int:
        ours.settimeout(10)
        _, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        return fds[0]

    with ours, theirs:
        yield theirs.fileno(), receive
