"""cgroup v2: one directory, controllers enabled from the top down, devices filtered by a program."""

from __future__ import annotations

import errno
import os
import time

from hutch.errors import Conflict, HutchError, InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.runtime.cgroups import files, hierarchy, tree
from hutch.runtime.cgroups.signals import signal_all
from hutch.runtime.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.runtime.cgroups.files import Write
    from hutch.spec.runtime import LinuxResources

_FREEZE_TIMEOUT_S = 10.0
_DESTROY_TIMEOUT_S = 10.0
_DELEGATE_HINT = "start it from a delegated scope: systemd-run --user --scope -p Delegate=yes …"


class V2Manager:
    """A container's cgroup on a host whose only hierarchy is the unified one."""

    def __init__(self, directory: str, *, rootless: bool = False, top: str = hierarchy.DEFAULT_ROOT) -> None:
        """Manage the cgroup at `directory`, below the hierarchy mounted at `top`."""
        self._directory = directory
        self._top = top
        self._rootless = rootless
        self._fresh = False
        self._refused: dict[str, OSError] = {}
        self._undelegated: OSError | None = None
        self.explain = files.Explain()

    @classmethod
    def locate(cls, cgroups_path: str, container_id: str, found: hierarchy.Hierarchies, *, rootless: bool) -> V2Manager:
        """Choose the directory; nothing is made yet.

        An absolute path is below the hierarchy's top. A relative one is beside this process's own cgroup, not in
        it: a cgroup with processes cannot give controllers to its children. Without root it is the nearest of the
        two that this user may write. An empty path is ``hutch/ID``, at the top for root.
        """
        wanted = hierarchy.check_path(cgroups_path)
        if not wanted:
            wanted = f"{tree.DEFAULT_PARENT}/{container_id}" if rootless else f"/{tree.DEFAULT_PARENT}/{container_id}"
        mount = found.unified
        if mount is None:
            raise NotSupported("cgroup: no unified hierarchy is mounted")
        if wanted.startswith("/"):
            return cls(mount.path + wanted, rootless=rootless, top=mount.path)
        own = mount.locate(hierarchy.own_cgroups().get("", "/"))
        base = own if own == mount.path else os.path.dirname(own)
        if rootless and not _is_delegated(base) and _is_delegated(own):
            base = own
        return cls(f"{base}/{wanted}", rootless=rootless, top=mount.path)

    def paths(self) -> dict[str, str]:
        """Return the one path, under ""; nothing if this user could not make it."""
        return {} if self._undelegated else {"": self._directory}

    # --- life ---------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the directory with every controller that can be had.

        A user without root may get none: that becomes an error in `apply` if a limit asks for one.

        Raises:
            HutchError: the directory cannot be made.
        """
        self._fresh = True
        try:
            tree.make(self._directory, self.explain)
        except OSError as error:
            if self._rootless and error.errno in files.NOT_ALLOWED:
                self._undelegated = error
                return
            raise self._cannot("make", error) from error
        self._refused = tree.enable_controllers(self._directory, self._top, self.explain)

    def adopt(self) -> None:
        """Take a cgroup that somebody else makes for us as new: the next `apply` closes its devices."""
        self._fresh = True

    def add(self, pid: int) -> None:
        """Move a process in.

        Raises:
            HutchError: the kernel refused.
        """
        if self._undelegated:
            return
        path = f"{self._directory}/cgroup.procs"
        try:
            files.write(path, str(pid))
        except OSError as error:
            raise self._cannot("join", error) from error
        self.explain("write", path, str(pid))

    def destroy(self) -> None:
        """Remove the cgroup with everything below; does nothing where it is gone.

        Raises:
            Unavailable: a process still lived in it after 10 s.
        """
        if self._undelegated:
            return
        if os.path.isdir(self._directory):
            tree.remove(self._directory, time.monotonic() + _DESTROY_TIMEOUT_S)
        tree.remove_default_parent(self._directory)

    def _cannot(self, verb: str, error: OSError) -> HutchError:
        message = f"{verb} cgroup {self._directory}: {os.strerror(error.errno or 0).lower()}"
        if error.errno in files.NOT_ALLOWED:
            return PermissionDenied(message, hint=_DELEGATE_HINT if self._rootless else "")
        if error.errno in {errno.EBUSY, errno.EOPNOTSUPP}:
            kind = files.read_or(f"{self._directory}/cgroup.type").strip()
            return Conflict(message, hint=f"its type is {kind}; processes can only join a domain without children")
        return Unavailable(message)

    # --- limits -------------------------------------------------------------------------------------------------

    def preload(self) -> None:
        """Import what `apply` needs."""
        from hutch.runtime.cgroups import device_program, devices, v2_knobs  # noqa: F401

    def apply(self, resources: LinuxResources) -> None:
        """Set what `resources` names and leave the rest as it is.

        The first call after `create` also sets the device rules when `resources` has none: a container is denied
        every device but the specification's default ones.

        Raises:
            NotSupported: cgroup v2 or this host has no controller or file for a value asked for.
            InvalidArgument: the kernel or the specification refuses a value.
            PermissionDenied: a limit is asked for where this user may not set one.
        """
        from hutch.runtime.cgroups import v2_knobs

        if not self._undelegated and resources.get("memory", {}).get("checkBeforeUpdate"):
            self._check_memory(resources)
        writes = v2_knobs.writes(resources, self._has, lambda name: files.read_or(f"{self._directory}/{name}"))
        self._check_controllers(writes)
        self._apply_devices(resources)
        files.write_all(writes, lambda _: self._directory, self.explain)
        self._fresh = False

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self._directory}/{name}")

    def _check_controllers(self, writes: list[Write]) -> None:
        """Refuse a write whose controller is missing, saying why it is."""
        if not writes:
            return
        have = set() if self._undelegated else set(files.read_or(f"{self._directory}/cgroup.controllers").split())
        for each in writes:
            if each.controller in have or each.controller == "cgroup" or self._has(each.files[0]):
                continue
            what = f"cgroup: cannot set {each.files[0]} to {each.text[:80]!r}"
            refused = self._undelegated or self._refused.get(each.controller)
            if refused is not None and refused.errno in files.NOT_ALLOWED:
                raise PermissionDenied(
                    f"{what}: the {each.controller} controller is not delegated to this user", hint=_DELEGATE_HINT
                )
            if refused is not None:
                cause = os.strerror(refused.errno or 0).lower()
                raise NotSupported(
                    f"{what}: the {each.controller} controller cannot be enabled in {refused.filename}: {cause}",
                    hint="a cgroup with processes of its own cannot limit its children",
                )
            raise NotSupported(f"{what}: this host has no {each.controller} controller for {self._directory}")

    def _check_memory(self, resources: LinuxResources) -> None:
        limit = resources["memory"].get("limit", 0)
        usage = files.read_int(f"{self._directory}/memory.current")
        if 0 < limit < usage:
            raise InvalidArgument(f"memory limit {limit}: smaller than the current usage {usage}")

    def _apply_devices(self, resources: LinuxResources) -> None:
        # A user namespace cannot make device nodes, so there is nothing to filter that the user could not open.
        if self._rootless or not ("devices" in resources or self._fresh):
            return
        from hutch.runtime.cgroups import device_program, devices

        rules = devices.with_defaults(resources.get("devices") or [])
        device_program.install(self._directory, device_program.assemble(rules))
        self.explain("bpf", self._directory, f"device program of {len(rules)} rules")

    # --- processes ----------------------------------------------------------------------------------------------

    def pids(self, recursive: bool = True) -> list[int]:
        """Return the processes in the cgroup (and below), in this process's pid namespace."""
        return [] if self._undelegated else tree.pids(self._directory, recursive)

    def freeze(self) -> None:
        """Stop every process; returns when all are stopped.

        Raises:
            NotSupported: there is no such cgroup, or the kernel is older than 5.2.
            Unavailable: one could not be stopped within 10 s; all are thawed again.
        """
        self._set_frozen("1")
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        pause_s = 0.0002
        while files.read_flat(f"{self._directory}/cgroup.events").get("frozen") != 1:
            if time.monotonic() > deadline:
                self._set_frozen("0")
                raise Unavailable(f"freeze cgroup {self._directory}: not all processes could be stopped")
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)

    def thaw(self) -> None:
        """Let every process run again."""
        self._set_frozen("0")

    def _set_frozen(self, text: str) -> None:
        path = f"{self._directory}/cgroup.freeze"
        if self._undelegated:
            raise NotSupported("freeze: this user has no cgroup", hint=_DELEGATE_HINT)
        try:
            files.write(path, text)
        except OSError as error:
            raise files.failed("freezer", path, text, error) from error
        self.explain("write", path, text)

    def frozen(self) -> bool:
        """Whether this cgroup itself is, or is being, frozen."""
        return not self._undelegated and files.read_or(f"{self._directory}/cgroup.freeze").strip() == "1"

    def kill(self, signal: int) -> None:
        """Send `signal` to every process, so that none escapes by forking.

        SIGKILL is one write since Linux 5.14, frozen or not; otherwise see `signals`.
        """
        path = f"{self._directory}/cgroup.kill"
        if signal == SIGKILL and not self._undelegated and os.path.exists(path):
            try:
                files.write(path, "1")
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
                    raise files.failed("core", path, "1", error) from error
            else:
                self.explain("write", path, "1")
                return
        signal_all(self, signal)

    # --- accounting ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return usage in the shape of runc's ``events --stats``."""
        from hutch.runtime.cgroups import v2_stats

        return v2_stats.collect(self._directory) if not self._undelegated else {}

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory in this cgroup and below."""
        return files.read_flat(f"{self._directory}/memory.events").get("oom_kill", 0)


def _is_delegated(directory: str) -> bool:
    """Whether this user may make cgroups in `directory` and give them controllers."""
    return all(
        os.access(path, os.W_OK)
        for path in (directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control")
    )
