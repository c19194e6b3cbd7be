"""Volumes: named directories that outlive containers.

volumes/<name>/_data          what a container sees
volumes/<name>/volume.json    labels, driver options, when it was made, whether a user named it
volumes/<name>/fill, fill.part  what the image has, on its way into an empty `_data` (`hutch.volume.copyup`)

Whoever makes, removes or begins to use a volume holds the lock on `volumes/`, for moments only: so none is removed
between the question who uses it and the answer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from hutch.errors import Conflict, HutchError, Internal, InvalidArgument, InvalidState, NotFound
from hutch.linux.mountinfo import mountinfo
from hutch.snapshot import helper, idmap
from hutch.snapshot.layers import delete, hide, make_locked, sweep_temporary
from hutch.snapshot.tree import usage_of
from hutch.volume.local import LocalMount, local_mount

_NAME = re.compile(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}\Z")
_RECORD = "volume.json"
_RECORD_BYTES_MAX = 1 << 20
_TEMPORARY = ("volume", "gone")


class Volume(msgspec.Struct, frozen=True):
    """One volume.

    Attributes:
        name: unique; 64 hexadecimal digits for an anonymous one.
        anonymous: made without a name, and removed with its container when asked.
        created: seconds since the epoch.
        options: the driver's, as the user gave them.
        path: host path of its data; empty in the record.
    """

    name: str
    anonymous: bool = False
    created: int = 0
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    path: str = ""

    @property
    def mount(self) -> LocalMount | None:
        """What its options say is mounted instead of the directory."""
        return local_mount(self.options)


class Pruned(msgspec.Struct, frozen=True):
    """What `VolumeStore.prune` did: names and bytes of what is gone, and what could not be removed and why."""

    names: tuple[str, ...]
    freed: int
    problems: tuple[str, ...]


class VolumeStore:
    """The volumes below one data root.

    Args:
        root: the data root.
        told: gets what happened (create, destroy) and the volume's name.
    """

    def __init__(self, root: str, *, told: Callable[[str, str], None] = lambda *_: None) -> None:
        self._directory = f"{root}/volumes"
        self._told = told
        self._tmp = f"{root}/tmp"

    def create(
        self,
        name: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Volume:
        """The volume `name`, made if it is missing; without a name, a new anonymous one.

        A volume that exists keeps its labels, as docker's does.

        Args:
            name: empty for an anonymous one.
            labels: of one that is made.
            options: the driver's.
            announce: told the name before anything is made, and while nobody can remove the volume: who notes there
                that he uses it keeps it, and a crash leaves no anonymous one that nobody knows of.

        Raises:
            InvalidArgument, NotSupported: the name or the options.
            Conflict: it exists with other options.
            Internal: it exists and is damaged.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        wanted = dict(options or {})
        local_mount(wanted)
        path = self._path(name)
        for directory in (self._directory, self._tmp):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with self._locked():
            if announce:
                announce(name)
            missing = not os.path.lexists(path)
            if missing:
                self._make(path, Volume(name, anonymous, int(time.time()), dict(labels or {}), wanted))
            found = self.get(name)
        if missing:
            self._told("create", name)
            self.sweep()
        if wanted and found.options != wanted:
            raise Conflict(f"a volume named {name} already exists with other options", hint="remove it first")
        return found

    def _make(self, path: str, record: Volume) -> None:
        # Made aside and renamed: a volume is there whole or not at all.
        new = f"{self._tmp}/volume-{os.urandom(8).hex()}"
        lock_fd = make_locked(new)
        try:
            os.mkdir(f"{new}/_data")
            os.chmod(f"{new}/_data", 0o755)
            _write_record(new, record)
            if not record.anonymous:
                os.fsync(lock_fd)
            os.rename(new, path)
            if not record.anonymous:
                self._sync()
        except BaseException:
            delete(new)
            raise
        finally:
            os.close(lock_fd)

    def get(self, name: str) -> Volume:
        """A volume by its name.

        Raises:
            NotFound: there is none.
            Internal: its record or its data are damaged.
        """
        path = self._path(name)
        if not os.path.lexists(path):
            raise NotFound(f"get {name}: no such volume")
        hint = f"its data, if there are any, are in {path}/_data; 'hutch volume rm {name}' removes it"
        try:
            fd = os.open(f"{path}/{_RECORD}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                data = file.read(_RECORD_BYTES_MAX + 1)
            if len(data) > _RECORD_BYTES_MAX:
                raise Internal(f"volume {name}: {_RECORD} is too long", hint=hint)
            found = msgspec.json.decode(data, type=Volume)
            local_mount(found.options)
            if found.name != name:
                raise Internal(f"volume {name}: {_RECORD} is of another volume", hint=hint)
            if not stat.S_ISDIR(os.lstat(f"{path}/_data").st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as problem:
            if not os.path.lexists(path):
                raise NotFound(f"get {name}: no such volume") from None
            reason = os.strerror(problem.errno or 0).lower()
            raise Internal(f"volume {name}: damaged: {reason}", hint=hint) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidArgument) as problem:
            raise Internal(f"volume {name}: {_RECORD} is damaged: {_one_line(problem)}", hint=hint) from None
        return msgspec.structs.replace(found, path=f"{path}/_data")

    def restore(self, name: str) -> Volume:
        """Write a new record for a volume whose own is gone; nothing but its name and its data is known of it.

        Raises:
            NotFound: there is no such volume.
            Conflict: it has a record.
            Internal: it has no data.
        """
        path = self._path(name)
        with self._locked():
            if not os.path.isdir(path):
                raise NotFound(f"get {name}: no such volume")
            _write_record(path, Volume(name, created=int(time.time())))
            self._sync()
            return self.get(name)

    def broken(self) -> tuple[tuple[str, HutchError], ...]:
        """The names of the damaged ones, and what is wrong with each."""
        return tuple(found for found in self._all() if not isinstance(found, Volume))

    def _all(self) -> Iterator[Volume | tuple[str, HutchError]]:
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return
        for name in names:
            if not _NAME.match(name):
                continue
            try:
                yield self.get(name)
            except NotFound:
                continue  # removed meanwhile
            except HutchError as problem:
                yield name, problem

    def remove(self, name: str, *, users: Callable[[], Iterable[str]] = tuple) -> None:
        """Delete a volume and its data, also a damaged one.

        Args:
            name: whose.
            users: asked for the containers that use it, while nobody can begin to; it must not call the store.

        Raises:
            NotFound: there is none.
            Conflict: a container uses it.
            InvalidState: something is mounted in it.
        """
        path = self._path(name)
        try:
            with self._locked():
                if ids := list(users()):
                    raise Conflict(f"remove {name}: volume is in use - [{', '.join(ids)}]")
                gone, lock_fd = self._hide(name, path)
        except FileNotFoundError:
            raise NotFound(f"get {name}: no such volume") from None
        try:
            self._sync()
            delete(gone)
        finally:
            os.close(lock_fd)
        self._told("destroy", name)
        self.sweep()

    def prune(self, used: Callable[[], Iterable[str]], chosen: Callable[[Volume], bool]) -> Pruned:
        """Remove volumes that no container uses; damaged ones stay, since nothing is known of them.

        Args:
            used: asked for the names of those in use, while nobody can begin to use another.
            chosen: whether to remove one.
        """
        hidden, problems, freed = [], [], 0
        try:
            with self._locked():
                kept = set(used())
                for volume in self._whole():
                    if volume.name in kept or not chosen(volume):
                        continue
                    try:
                        hidden.append((volume.name, *self._hide(volume.name, f"{self._directory}/{volume.name}")))
                    except InvalidState as problem:
                        problems.append(str(problem))
        except FileNotFoundError:
            return Pruned((), 0, ())
        self._sync()
        for name, gone, lock_fd in hidden:
            try:
                freed += _usage(f"{gone}/_data")
                delete(gone)
                self._told("destroy", name)
            except OSError as problem:
                problems.append(f"volume {name}: {problem.filename}: {os.strerror(problem.errno or 0).lower()}")
            finally:
                os.close(lock_fd)
        self.sweep()
        return Pruned(tuple(name for name, _, _ in hidden), freed, tuple(problems))

    def usage(self, name: str) -> int:
        """Bytes that the data of a volume take on disk."""
        return _usage(self.get(name).path)

    def sweep(self) -> None:
        """Delete what killed processes left half made or half deleted; what cannot be waits for the next time."""
        with suppress(OSError, HutchError):
            sweep_temporary(self._tmp, _TEMPORARY)

    def _hide(self, name: str, path: str) -> tuple[str, int]:
        """Take a volume out of the list; the lock is ours. Its place in tmp/, and a descriptor to close after all."""
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        place = os.readlink(f"/proc/self/fd/{fd}")  # as mountinfo has it, whatever links lead to the data root
        os.close(fd)
        inside = [mount.mount_point for mount in mountinfo() if f"{mount.mount_point}/".startswith(f"{place}/")]
        try:
            if not inside:
                os.makedirs(self._tmp, mode=0o700, exist_ok=True)
                return hide(path, self._tmp)
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            inside = [path]
        raise InvalidState(
            f"remove {name}: something is mounted in it: {inside[0]}", have="mounted", want="unmounted",
            hint="unmount it, then remove again",
        )  # fmt: skip

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, name: str) -> str:
        if not _NAME.match(name):
            raise InvalidArgument(
                f"volume name {name[:260]!r}: two or more letters, digits, '_', '.' and '-', a letter or digit first"
            )
        return f"{self._directory}/{name}"

    def _whole(self) -> Iterator[Volume]:
        return (found for found in self._all() if isinstance(found, Volume))

    def list(self) -> list[Volume]:
        """All volumes that are whole, by name."""
        return [*self._whole()]


def _write_record(path: str, record: Volume) -> None:
    try:
        fd = os.open(f"{path}/{_RECORD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"volume {record.name}: it has a record") from None
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        if not record.anonymous:
            os.fsync(fd)


def _usage(path: str) -> int:
    if idmap.needs_user_namespace():
        return int(helper.run("hutch.snapshot.tree_child", ["usage", path])[0])
    return usage_of(path)[0]


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200].lower()
