"""`hutch system recover`: the truth about what is left after a boot or a crash, and what the policies say then.

lock <state>/boot → bury what was killed → free what nobody has any more → start again → note the boot
"""

from __future__ import annotations

import fcntl
import os

from hutch.engine import boot, lifecycle
from hutch.engine.checks.leftovers import check_leftovers
from hutch.errors import ContainerNotFound, HutchError
from hutch.runtime.state import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerRecord
    from hutch.engine.engine import Engine


class Recovered:
    """What was done.

    Attributes:
        ended: names of containers that did not run any more and were said to.
        freed: what was removed, in words.
        started: names of containers that were started again.
        problems: what could not be done, in words.
    """

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.freed: list[str] = []
        self.started: list[str] = []
        self.problems: list[str] = []


def recover(engine: Engine, *, only_after_boot: bool = False) -> Recovered:
    """Put everything right.

    Args:
        engine: where.
        only_after_boot: nothing is done if somebody has done it since the boot.

    Raises:
        PermissionDenied: the directories are not ours.
    """
    engine.prepare_directories()
    done = Recovered()
    fd = os.open(f"{engine.state}/{boot.NAME}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        current = boot_id().encode()
        first = os.pread(fd, len(current) + 1, 0) != current
        if not first and only_after_boot:
            return done
        _recover(engine, done, first=first)
        os.ftruncate(fd, 0)
        os.pwrite(fd, current, 0)
    finally:
        os.close(fd)
    return done


def _recover(engine: Engine, done: Recovered, *, first: bool) -> None:
    active = [row[0] for row in engine.database.read("SELECT name FROM containers WHERE active")]
    done.problems += lifecycle.sweep(engine)
    still = {row[0] for row in engine.database.read("SELECT name FROM containers WHERE active")}
    done.ended = [name for name in active if name not in still]
    for finding in check_leftovers(engine):
        if finding.mend is None:
            continue
        try:
            done.freed.append(f"{finding.text}: {finding.mend()}")
        except (HutchError, OSError) as error:
            done.problems.append(f"{finding.text}: {error}")
    for directory in engine.containers.all():
        with directory:
            if not _is_wanted(directory.record, first=first):
                continue
        try:
            lifecycle.start_detached(engine, directory.record.id)
        except ContainerNotFound:
            continue
        except (HutchError, OSError) as error:
            done.problems.append(f"container {directory.record.name} cannot be started again: {error}")
        else:
            done.started.append(directory.record.name)


def _is_wanted(record: ContainerRecord, *, first: bool) -> bool:
    """Whether its policy says that it is to run now.

    After a boot ``always`` means also those that were stopped before it, as in Docker; ``on-failure`` never does, for
    a machine that was restarted is no failure of the container's.
    """
    if record.status != "exited" or not record.started:
        return False
    policy = record.restart.get("Name")
    if policy == "always":
        return first or not record.stopped
    return policy == "unless-stopped" and not record.stopped
