"""What can be learnt of a container from outside: how its start failed, whether memory was short, where it freezes."""

from __future__ import annotations

import errno

from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.errors import ContainerSetupFailed
    from hutch.runtime.container import Container


def freezer_file(cgroup_paths: dict[str, str]) -> str:
    """The file that says whether a cgroup is frozen: of version 2 or of version 1."""
    if "freezer" in cgroup_paths:
        return f"{cgroup_paths['freezer']}/freezer.state"
    return f"{cgroup_paths['']}/cgroup.freeze" if cgroup_paths.get("") else ""


def oom_killed(container: Container) -> bool:
    """Whether the kernel killed something in it for want of memory."""
    try:
        return container.cgroup().oom_kills() > 0
    except (OSError, HutchError):  # without a cgroup of its own there is nothing to ask
        return False


def exit_code_of(error: ContainerSetupFailed) -> int:
    """Docker's status for a container that could not be set up: 127 no such command, 126 not executable, else 125."""
    if not error.step.startswith(("execute", "find program")):
        return 125
    if error.errno in (errno.ENOENT, errno.ENOTDIR) or "not found" in str(error):
        return 127
    return 126 if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOEXEC, errno.ELOOP) else 125
