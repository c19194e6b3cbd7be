"""Bundles of busybox, and OCI runtimes (ours and the peers) to run them with."""

from __future__ import annotations

import atexit
import contextlib
import copy
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hutch
from hutch.runtime.commands.spec import default_spec
from tests.support import files, programs

SOURCE = str(Path(hutch.__file__).parents[1])
CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_KILL "
    "CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_AUDIT_WRITE"
).split()


def launcher(directory: str, name: str = "hutch-oci", *, before: str = "") -> str:
    """Write an executable hutch-oci of this checkout, as other engines need one; returns its path.

    Args:
        directory: where to.
        name: of the file.
        before: Python to run after hutch can be imported, such as a failpoint.
    """
    path = f"{directory}/{name}"
    text = f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {SOURCE!r})\n{before}\n"
    Path(path).write_text(f"{text}from hutch.runtime.main import run\nrun()\n", encoding="utf-8")
    os.chmod(path, 0o755)
    return path


@functools.cache
def shared_rootfs() -> str:
    """A busybox root file system for the session; containers must leave it as it is (root.readonly)."""
    directory = tempfile.mkdtemp(prefix=f"hutch-session-{os.getpid()}-rootfs-", dir="/var/tmp")
    atexit.register(files.remove_tree, directory)
    os.chmod(directory, 0o755)
    return busybox_rootfs(f"{directory}/rootfs")


def busybox_rootfs(path: str) -> str:
    """Make a root file system with busybox, its applets, users and the usual mount points."""
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "root"):
        os.makedirs(f"{path}/{name}", 0o755)
    os.chmod(f"{path}/tmp", 0o1777)
    program = shutil.which("busybox") or ""
    shutil.copy(program, f"{path}/bin/busybox")
    for applet in programs.run([program, "--list"]).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{path}/bin/{applet}")
    Path(path, "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/:/bin/sh\n")
    Path(path, "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    return path


@dataclasses.dataclass
class Bundle:
    """A directory with config.json.

    Attributes:
        path: the directory.
        spec: what config.json is to hold; `write` puts it there.
    """

    path: str
    spec: dict[str, Any]

    @property
    def process(self) -> dict[str, Any]:
        """The spec's process."""
        process: dict[str, Any] = self.spec["process"]
        return process

    def write(self) -> str:
        """Write config.json; returns the bundle's path."""
        Path(self.path, "config.json").write_text(json.dumps(self.spec), encoding="utf-8")
        return self.path

    def own_rootfs(self) -> str:
        """Give the bundle a writable root file system of its own."""
        self.spec["root"] = {"path": "rootfs", "readonly": False}
        return busybox_rootfs(f"{self.path}/rootfs")


def make_bundle(path: str, *args: str, cgroup: str = "") -> Bundle:
    """A bundle like docker's containers: all namespaces but the user's, no network, capabilities, no terminal.

    Args:
        path: a directory to make.
        args: the program and its arguments.
        cgroup: cgroupsPath; empty leaves it to the runtime.
    """
    os.mkdir(path)
    spec = copy.deepcopy(default_spec(rootless=False))
    spec["root"] = {"path": shared_rootfs(), "readonly": True}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
    spec["process"].update(terminal=False, args=list(args or ["true"]), noNewPrivileges=True)
    spec["process"]["capabilities"] = {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")}
    if cgroup:
        spec["linux"]["cgroupsPath"] = cgroup
    return Bundle(path, spec)


class Runtime:
    """One OCI runtime's command with a private --root.

    Args:
        program: path or name.
        root: directory for its state.
        cgroup_parent: where containers' cgroups go.
        options: more global options.
    """

    def __init__(self, program: str, root: str, cgroup_parent: str, options: Sequence[str] = ()) -> None:
        self.program, self.root, self.cgroup_parent, self.options = program, root, cgroup_parent, list(options)
        self.made: list[str] = []

    def argv(self, *words: str) -> list[str]:
        """The command line of one command."""
        return [self.program, "--root", self.root, *self.options, *words]

    def __call__(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return programs.run(self.argv(*words), check=check, **{"timeout_s": 30, **options})

    def bundle(self, container_id: str, *args: str) -> Bundle:
        """A bundle for that container; to be written once it is as the test wants it."""
        self.made.append(container_id)
        return make_bundle(f"{self.root}-{container_id}", *args, cgroup=f"{self.cgroup_parent}/{container_id}")

    def create(self, bundle: Bundle, container_id: str, *options: str) -> dict[str, Any]:
        """Create a container whose stdio is /dev/null; returns its state."""
        argv = self.argv("create", *options, "--bundle", bundle.write(), container_id)
        with open(f"{bundle.path}/stderr", "w+b") as errors:  # not a pipe: init has it until it ends
            null = subprocess.DEVNULL
            done = subprocess.run(argv, stdin=null, stdout=null, stderr=errors, check=False, timeout=30)
        assert done.returncode == 0, Path(bundle.path, "stderr").read_text()
        return self.state(container_id)

    def running(self, container_id: str, *args: str) -> dict[str, Any]:
        """Create and start a container of `args` (default: sleep); returns its state."""
        self.create(self.bundle(container_id, *(args or ("sleep", "1000"))), container_id)
        self("start", container_id)
        return self.state(container_id)

    def state(self, container_id: str) -> dict[str, Any]:
        """What `state` prints."""
        found: dict[str, Any] = json.loads(self("state", container_id).stdout)
        return found

    def status(self, container_id: str) -> str:
        """The status alone."""
        return str(self.state(container_id)["status"])

    def wait_stopped(self, container_id: str) -> None:
        """Wait until init has ended."""
        programs.wait_until(lambda: self.status(container_id) == "stopped", 10)


@contextlib.contextmanager
def runtime(base: str, cgroup_parent: str, program: str = "", options: Sequence[str] = ()) -> Iterator[Runtime]:
    """A runtime below `base`, ours unless `program` says otherwise; its containers are deleted at the end."""
    found = Runtime(program or launcher(base), f"{base}/oci", cgroup_parent, options)
    try:
        yield found
    finally:
        for container_id in found.made:
            found("delete", "--force", container_id, check=False)


def cgroup_of(pid: int) -> Sequence[str]:
    """The cgroup paths of a process."""
    return [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
