"""Volumes: named directories that outlive containers.

volumes/<name>/_data          what a container sees
volumes/<name>/volume.json    labels, when it was made, whether it was named by a user
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping

import msgspec

from hutch.errors import InvalidArgument, InvalidState, NotFound
from hutch.snapshot.layers import delete

_NAME = re.compile(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}\Z")
_RECORD = "volume.json"
_RECORD_BYTES_MAX = 1 << 20


class Volume(msgspec.Struct, frozen=True):
    """One volume.

    Attributes:
        name: unique; 64 hexadecimal digits for an anonymous one.
        anonymous: made for one container, and removed with it when asked.
        created: seconds since the epoch.
        path: host path of its data.
    """

    name: str
    anonymous: bool = False
    created: int = 0
    labels: dict[str, str] = {}
    path: str = ""


class VolumeStore:
    """The volumes below one data root.

    Args:
        root: the data root.
    """

    def __init__(self, root: str) -> None:
        self._directory = f"{root}/volumes"
        self._tmp = f"{root}/tmp"
        for directory in (self._directory, self._tmp):
            os.makedirs(directory, mode=0o700, exist_ok=True)

    def create(
        self, name: str = "", *, labels: Mapping[str, str] | None = None, announce: Callable[[str], None] | None = None
    ) -> Volume:
        """The volume `name`, made if it is missing; without a name, a new anonymous one.

        A volume that exists keeps its labels, as docker's does.

        Args:
            name: empty for an anonymous one.
            labels: of one that is made.
            announce: told an anonymous one's name before it is made, so that a crash leaves none that nobody knows of.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        if anonymous and announce:
            announce(name)
        path = self._path(name)
        try:
            return self.get(name)
        except NotFound:
            pass
        # Made aside and renamed: a volume is there whole or not at all.
        new = f"{self._tmp}/volume-{os.urandom(8).hex()}"
        os.makedirs(f"{new}/_data", mode=0o700)
        try:
            os.chmod(f"{new}/_data", 0o755)
            record = Volume(name, anonymous, int(time.time()), dict(labels or {}))
            fd = os.open(f"{new}/{_RECORD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, msgspec.json.encode(record))
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(new, path)
        except OSError as problem:
            delete(new)
            if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        except BaseException:
            delete(new)
            raise
        return self.get(name)

    def get(self, name: str) -> Volume:
        """A volume by its name; NotFound if there is none."""
        path = self._path(name)
        try:
            with open(f"{path}/{_RECORD}", "rb", buffering=0) as file:
                found = msgspec.json.decode(file.read(_RECORD_BYTES_MAX), type=Volume)
        except FileNotFoundError:
            raise NotFound(f"volume {name}: no such volume") from None
        except msgspec.MsgspecError:
            found = Volume(name)  # the record is torn; the data are what counts
        return msgspec.structs.replace(found, name=name, path=f"{path}/_data")

    def list(self) -> list[Volume]:
        """All volumes, by name."""
        return [self.get(name) for name in sorted(os.listdir(self._directory)) if _NAME.match(name)]

    def remove(self, name: str) -> None:
        """Delete a volume and its data. That no container uses it is the caller's to know.

        Raises:
            NotFound: there is none.
            InvalidState: something is mounted in it.
        """
        path = self._path(name)
        gone = f"{self._tmp}/gone-{os.urandom(8).hex()}"
        try:
            os.rename(path, gone)
        except FileNotFoundError:
            raise NotFound(f"volume {name}: no such volume") from None
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            raise InvalidState(f"volume {name}: something is mounted in it", have="mounted", want="unmounted") from None
        delete(gone)

    def _path(self, name: str) -> str:
        if not _NAME.match(name):
            raise InvalidArgument(
                f"volume name {name[:260]!r}: two or more letters, digits, '_', '.' and '-', a letter or digit first"
            )
        return f"{self._directory}/{name}"
