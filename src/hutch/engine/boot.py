"""Whether the machine was restarted since a command of hutch last ran: the file `boot` in the state directory knows.

A reboot ends containers without anybody to write that down. The first command afterwards does, frees what they had,
and starts again those whose policy says so (`hutch.engine.recovery`).
"""

from __future__ import annotations

import os

from hutch.runtime.state import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.engine import Engine

NAME = "boot"
_LIMIT = 64


def is_new(engine: Engine) -> bool:
    """Whether nobody has recovered since the boot."""
    try:
        with open(f"{engine.state}/{NAME}", "rb", buffering=0) as file:
            return file.read(_LIMIT) != boot_id().encode()
    except FileNotFoundError:
        return os.path.exists(engine.database.path)  # without a store there is nothing to recover
    except OSError:
        return False  # another user's: his commands see to it


def notice(engine: Engine) -> list[str]:
    """Recover if this is the first command since the boot; what could not be done, in words for the user."""
    if not is_new(engine):
        return []
    if not engine.database.read("SELECT 1 FROM containers LIMIT 1"):
        _note(engine.state)
        return []
    from hutch.engine.recovery import recover

    return recover(engine, only_after_boot=True).problems


def _note(state: str) -> None:
    """Nothing is left of any container: that costs no more to find out than this."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(f"{state}/{NAME}", flags, 0o600)
    except OSError:
        return  # nothing has ever run here, or nothing can
    with open(fd, "wb", buffering=0) as file:
        file.write(boot_id().encode())
