"""A dockerd of our own: private directories and socket, no bridge, no firewall rules; stopped by pid."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator, Sequence

from tests.support.files import unmount_below
from tests.support.host import read
from tests.support.programs import daemon, run


@dataclasses.dataclass(frozen=True)
class Docker:
    """A running dockerd.

    Attributes:
        address: "unix://…", for clients (DOCKER_HOST).
        log: path of what it writes.
        pid: of dockerd.
    """

    address: str
    log: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """Environment for docker's command line that ignores the user's own configuration."""
        config = os.path.dirname(self.address.removeprefix("unix://"))
        return {"PATH": os.environ["PATH"], "DOCKER_HOST": self.address, "DOCKER_CONFIG": config, "HOME": config}

    def __call__(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker …` against it."""
        return run(["docker", *argv], env=self.env, check=check)


@contextlib.contextmanager
def dockerd(directory: str, *options: str) -> Iterator[Docker]:
    """Start dockerd (and the containerd that it starts); needs root. Options are dockerd's, such as --add-runtime."""
    socket = f"{directory}/docker.sock"
    argv: Sequence[str] = [
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--pidfile={directory}/docker.pid",
        f"--config-file={_empty(f'{directory}/daemon.json')}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--log-level=warn",
        *options,
    ]
    env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": directory, "DOCKER_RAMDISK": "1"}

    def ready() -> bool:
        info = ["docker", "--host", f"unix://{socket}", "version"]
        return os.path.exists(socket) and subprocess.run(info, capture_output=True, check=False).returncode == 0

    with daemon(argv, log=f"{directory}/log", ready=ready, env=env, patience_s=60) as process:
        try:
            yield Docker(f"unix://{socket}", f"{directory}/log", process.pid)
        finally:
            managed = read(f"{directory}/exec/containerd/containerd.pid").strip()
    if managed and os.path.exists(f"/proc/{managed}"):  # dockerd was killed before it could stop its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(managed), 9)
    unmount_below(directory)  # its network namespaces, and its data root mounted on itself


def _empty(path: str) -> str:
    with open(path, "w", encoding="ascii") as file:
        file.write("{}")
    return path
