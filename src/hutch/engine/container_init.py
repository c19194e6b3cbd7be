"""The init that --init runs as process 1: container_init.c's machine code, put where it can be mounted."""

from __future__ import annotations

import os

from hutch.engine.container_init_image import IMAGES
from hutch.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.spec.runtime import Mount


def init_mount(folder: str, target: str) -> Mount:
    """Write the program into the container's directory, and return the mount that shows it at `target`.

    Raises:
        NotSupported: this machine is neither x86-64 nor arm64.
    """
    machine = os.uname().machine
    if machine not in IMAGES:
        raise NotSupported(f"--init: there is no init for {machine}")
    path = f"{folder}/init"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o755)
    with open(fd, "wb") as file:
        file.write(IMAGES[machine])
        os.fchmod(fd, 0o755)
    options = ["bind", "ro", "nosuid", "nodev", "rprivate"]
    return {"destination": target, "type": "bind", "source": path, "options": options}
