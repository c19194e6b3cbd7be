"""What every process does that is about to enter a container, or to become a hook: let go of what it inherited."""

from __future__ import annotations

import sys

from hutch.linux import process
from hutch.runtime import signals

_LAST_STANDARD = 31
_KEPT = (signals.SIGKILL, signals.SIGSTOP)
_IGNORED_BY_PYTHON = (signals.SIGPIPE, 25)  # 25 is SIGXFSZ


def forget_signals() -> None:
    """Default dispositions, but of those that Python ignores: writing to a parent that died shall be an error."""
    signals.set_wakeup_fd(-1)
    for number in range(1, _LAST_STANDARD + 1):
        if number not in _KEPT and number not in _IGNORED_BY_PYTHON:
            signals.handle(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def restore_signals() -> None:
    """The rest, right before execve: a program would inherit them ignored."""
    for number in _IGNORED_BY_PYTHON:
        signals.handle(number, signals.SIG_DFL)
    for number in range(_LAST_STANDARD + 1, signals.LAST + 1):  # Python has no say over 32 and 33
        process.default_signal(number)


def forbid_imports() -> None:
    """From here on a module that is not loaded cannot be: neither ours by a slip, nor the container's."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def close_others(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not in `keep`."""
    first = 3
    for fd in sorted(keep):
        if fd > first:
            process.close_range(first, fd - 1)
        first = max(first, fd + 1)
    process.close_range(first)
