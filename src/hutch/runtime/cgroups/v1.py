"""cgroup v1, and hybrid hosts where the unified hierarchy has a part of the controllers.

A container's cgroup is a directory in every hierarchy. On a hybrid host it also has one in the unified hierarchy,
which carries what v1 lacks there (``hugetlb`` on some hosts) and lets tools of v2 find it.
"""

from __future__ import annotations

import errno
import os
import time

from hutch.errors import HutchError, InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.runtime.cgroups import files, hierarchy, signals, tree
from hutch.runtime.cgroups.files import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.spec.runtime import LinuxResources

_FREEZE_TIMEOUT_S = 10.0
_DESTROY_TIMEOUT_S = 10.0


class V1Manager:
    """A container's cgroups in every hierarchy of a v1 or hybrid host."""

    def __init__(self, paths: dict[str, str], *, rootless: bool = False) -> None:
        """Manage the cgroups at `paths`: controller (``name=…``, "" for the unified hierarchy) → directory."""
        self._paths = paths
        self._rootless = rootless
        self._denied: dict[str, OSError] = {}
        self._fresh = False
        self.explain = files.Explain()

    @classmethod
    def locate(cls, cgroups_path: str, container_id: str, found: hierarchy.Hierarchies, *, rootless: bool) -> V1Manager:
        """Choose the directories; nothing is made yet.

        A relative path is below this process's own cgroup in each hierarchy, an absolute one below the
        hierarchy's top, and an empty one is ``hutch/ID`` at the top (for a user without root: below the own cgroup).
        """
        wanted = hierarchy.check_path(cgroups_path)
        if not wanted:
            wanted = f"{tree.DEFAULT_PARENT}/{container_id}" if rootless else f"/{tree.DEFAULT_PARENT}/{container_id}"
        own = {} if wanted.startswith("/") else hierarchy.own_cgroups()
        paths = {}
        everywhere = dict(found.v1)
        if found.unified is not None:
            everywhere[""] = found.unified
        for controller, mount in everywhere.items():
            base = mount.path if wanted.startswith("/") else mount.locate(own.get(controller, "/"))
            paths[controller] = f"{base}/{wanted.lstrip('/')}"
        return cls(paths, rootless=rootless)

    def paths(self) -> dict[str, str]:
        """Return controller → directory, without those this user could not make."""
        return {name: path for name, path in self._paths.items() if name not in self._denied}

    # --- life ---------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the directories, and give cpuset what it needs before anything can be added.

        A user without root may lack some or all: that is remembered, and becomes an error in `apply` if a limit
        asks for one of them.

        Raises:
            HutchError: a directory cannot be made.
        """
        self._fresh = True
        for directory, controllers in self._by_directory().items():
            try:
                tree.make(directory, self.explain)
                if "cpuset" in controllers:
                    self._inherit_cpuset(directory)
            except OSError as error:
                if self._rootless and error.errno in files.NOT_ALLOWED:
                    self._denied.update(dict.fromkeys(controllers, error))
                    continue
                raise _cannot("make", directory, error) from error

    def _by_directory(self) -> dict[str, list[str]]:
        """Group controllers by directory: those mounted together share one."""
        grouped: dict[str, list[str]] = {}
        for controller, path in self.paths().items():
            grouped.setdefault(path, []).append(controller)
        return grouped

    def _inherit_cpuset(self, directory: str) -> None:
        """Fill an empty cpuset.cpus and cpuset.mems from the parent, parents first: no task can join before."""
        empty = [
            name for name in ("cpuset.cpus", "cpuset.mems") if not files.read_or(f"{directory}/{name}", "-").strip()
        ]
        if not empty:
            return
        parent = os.path.dirname(directory)
        self._inherit_cpuset(parent)
        for name in empty:
            text = files.read(f"{parent}/{name}").strip()
            files.write(f"{directory}/{name}", text)
            self.explain("write", f"{directory}/{name}", text)

    def add(self, pid: int) -> None:
        """Move a process into every hierarchy's cgroup.

        Raises:
            HutchError: the kernel refused one of them.
        """
        for directory in self._by_directory():
            path = f"{directory}/cgroup.procs"
            try:
                _write_pid(path, pid)
            except OSError as error:
                if error.errno == errno.ENOENT and not os.path.isdir(directory):
                    raise NotSupported(f"cgroup {directory}: it is gone") from error
                raise _cannot("join", directory, error) from error
            self.explain("write", path, str(pid))

    def destroy(self) -> None:
        """Remove the cgroups with everything below; does nothing where they are gone.

        Raises:
            Unavailable: a process still lived in one after 10 s.
        """
        deadline = time.monotonic() + _DESTROY_TIMEOUT_S
        for directory in self._by_directory():
            if os.path.isdir(directory):
                tree.remove(directory, deadline)
            tree.remove_default_parent(directory)

    # --- limits -------------------------------------------------------------------------------------------------

    def preload(self) -> None:
        """Import what `apply` needs."""
        from hutch.runtime.cgroups import devices, v1_knobs  # noqa: F401

    def apply(self, resources: LinuxResources) -> None:
        """Set what `resources` names and leave the rest as it is.

        The first call after `create` also sets the device rules when `resources` has none: a container is denied
        every device but the specification's default ones.

        Raises:
            NotSupported: this host has no controller or file for a value asked for.
            InvalidArgument: the kernel or the specification refuses a value.
            PermissionDenied: a limit is asked for where this user may not set one.
        """
        from hutch.runtime.cgroups import v1_knobs

        for directory in self._by_directory():
            if not os.path.isdir(directory):
                raise NotSupported(f"cgroup {directory}: it is gone")
        self._apply_devices(resources)
        if resources.get("memory", {}).get("checkBeforeUpdate"):
            self._check_memory(resources["memory"].get("limit", 0))
        offered = self._offered_by_unified()
        writes = v1_knobs.writes(resources, self._has, offered)
        self._enable_unified({each.controller for each in writes} & offered)
        for each in writes:
            if each.controller not in self.paths() and each.controller not in offered:
                raise self._missing(each)
        files.write_all(writes, self._directory, self.explain)
        self._fresh = False

    def _directory(self, controller: str) -> str:
        paths = self.paths()
        return paths[controller] if controller in paths else paths[""]

    def _has(self, name: str) -> bool:
        """Whether the cgroup has a file; its controller is the name's first word."""
        directory = self.paths().get(name.partition(".")[0])
        return directory is not None and os.path.exists(f"{directory}/{name}")

    def _offered_by_unified(self) -> set[str]:
        """Return the controllers that are bound to the unified hierarchy, with ``cgroup`` for its own files."""
        directory = self.paths().get("")
        if directory is None:
            return set()
        return {"cgroup", *files.read_or(f"{tree.top_of(directory)}/cgroup.controllers").split()}

    def _enable_unified(self, controllers: set[str]) -> None:
        """Enable controllers of the unified hierarchy only when a limit needs them: it is not ours to arrange."""
        if controllers - {"cgroup"}:
            directory = self.paths()[""]
            refused = tree.enable_controllers(directory, tree.top_of(directory), self.explain, only=controllers)
            for controller, error in refused.items():
                cause = os.strerror(error.errno or 0).lower()
                raise NotSupported(f"cgroup: enable {controller} in {error.filename}: {cause}")

    def _missing(self, each: Write) -> HutchError:
        what = f"cgroup: cannot set {each.files[0]} to {each.text[:80]!r}"
        denied = self._denied.get(each.controller)
        if denied is not None:
            return PermissionDenied(
                f"{what}: {os.strerror(denied.errno or 0).lower()}",
                hint=f"the {each.controller} cgroup of this user is not delegated; run as root or without the limit",
            )
        return NotSupported(f"{what}: this host has no {each.controller} controller")

    def _apply_devices(self, resources: LinuxResources) -> None:
        directory = self.paths().get("devices")
        if directory is None or self._rootless:
            # A user namespace cannot make device nodes, so there is nothing to filter that the user could not open.
            return
        if "devices" in resources or self._fresh:
            from hutch.runtime.cgroups import devices

            rules = devices.with_defaults(resources.get("devices") or [])
            held = devices.read_v1(files.read(f"{directory}/devices.list"))
            changes = [Write("devices", (file,), text) for file, text in devices.transition(held, rules)]
            # Written one by one: order is meaning here, and a rule the kernel refuses is an error at once.
            for each in changes:
                files.write_all([each], self._directory, self.explain)

    def _check_memory(self, limit: int) -> None:
        usage = files.read_int(f"{self._directory('memory')}/memory.usage_in_bytes")
        if 0 < limit < usage:
            raise InvalidArgument(f"memory limit {limit}: smaller than the current usage {usage}")

    # --- processes ----------------------------------------------------------------------------------------------

    def pids(self, recursive: bool = True) -> list[int]:
        """Return the processes in the cgroup (and below), in this process's pid namespace."""
        paths = self.paths()
        for controller in ("pids", "freezer", "devices", *paths):
            if controller in paths:
                return tree.pids(paths[controller], recursive)
        return []

    def freeze(self) -> None:
        """Stop every process; returns when all are stopped.

        Raises:
            NotSupported: there is no freezer.
            Unavailable: one could not be stopped within 10 s; all are thawed again.
        """
        directory = self._freezer()
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        pause_s = 0.0005
        tries = 0
        self.explain("write", f"{directory}/freezer.state", "FROZEN")
        while True:
            # Written each time: while processes fork, one write may leave the cgroup FREEZING for ever.
            self._set_freezer(directory, "FROZEN")
            if files.read(f"{directory}/freezer.state").strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                self._set_freezer(directory, "THAWED")
                raise Unavailable(f"freeze cgroup {directory}: not all processes could be stopped")
            tries += 1
            if tries % 25 == 24:
                # A process waiting for a stopped one in the kernel frees itself only if both may run for a moment.
                self._set_freezer(directory, "THAWED")
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)

    def thaw(self) -> None:
        """Let every process run again.

        Raises:
            NotSupported: there is no freezer.
        """
        directory = self._freezer()
        self._set_freezer(directory, "THAWED")
        self.explain("write", f"{directory}/freezer.state", "THAWED")

    def frozen(self) -> bool:
        """Whether the container is stopped, or being stopped, by its own cgroup; False without a freezer or cgroup."""
        directory = self.paths().get("freezer")
        if directory is None:
            return False
        try:
            return files.read_or(f"{directory}/freezer.self_freezing").strip() == "1"
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise

    def _freezer(self) -> str:
        directory = self.paths().get("freezer")
        if directory is None:
            raise NotSupported("freeze: this host has no freezer controller that this user may use")
        return directory

    def _set_freezer(self, directory: str, state: str) -> None:
        try:
            files.write(f"{directory}/freezer.state", state)
        except OSError as error:
            raise files.failed("freezer", f"{directory}/freezer.state", state, error) from error

    def kill(self, signal: int) -> None:
        """Send `signal` to every process, so that none escapes by forking; see `signals`."""
        signals.signal_all(self, signal)

    # --- accounting ---------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return usage in the shape of runc's ``events --stats``."""
        from hutch.runtime.cgroups import v1_stats

        return v1_stats.collect(self.paths())

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory in this cgroup."""
        directory = self.paths().get("memory")
        return files.read_flat(f"{directory}/memory.oom_control").get("oom_kill", 0) if directory else 0


def _write_pid(path: str, pid: int) -> None:
    for attempt in range(5):
        try:
            files.write(path, str(pid))
        except OSError as error:
            # EINVAL: the task is so new that it cannot be moved yet (runc waits for the same).
            if error.errno != errno.EINVAL or attempt == 4:
                raise
            time.sleep(0.03)
        else:
            return


def _cannot(verb: str, directory: str, error: OSError) -> HutchError:
    cause = os.strerror(error.errno or 0).lower()
    message = f"{verb} cgroup {directory}: {cause}"
    if error.errno in files.NOT_ALLOWED:
        return PermissionDenied(message, hint="the cgroup is not delegated to this user")
    if error.errno == errno.EINVAL and "/cpu" in directory:
        return InvalidArgument(message, hint="a real-time process needs cpu.rt_runtime_us in its cgroup")
    return Unavailable(message)
