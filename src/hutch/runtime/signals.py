"""Signals on the start-up path: `signal` imports `enum`, which costs more than everything else in `hutch-oci state`.

`_signal` is a private name of CPython, so it is wrapped here once, with the public module where it is missing.
The numbers are Linux's on x86-64 and arm64.
"""

from __future__ import annotations

import os
import time

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    try:
        import _signal
    except ImportError:
        import signal as _signal

NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
"""Names without SIG; the first is signal 1."""

SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGTERM = 1, 2, 3, 9, 13, 15
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH = 17, 18, 19, 20, 21, 22, 23, 28
SIGRTMIN, SIGRTMAX, LAST = 34, 64, 64

_SAME_S = 2.0

_ALIASES = {"IOT": "ABRT", "CLD": "CHLD", "POLL": "IO"}

handle = _signal.signal
disposition = _signal.getsignal
pthread_sigmask = _signal.pthread_sigmask
set_wakeup_fd = _signal.set_wakeup_fd
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = int(_signal.SIG_BLOCK), int(_signal.SIG_UNBLOCK), int(_signal.SIG_SETMASK)
SIG_DFL, SIG_IGN = _signal.SIG_DFL, _signal.SIG_IGN


def listen_to_interrupts() -> None:
    """Make control-C raise KeyboardInterrupt from now on; the launchers let it end them silently while they import.

    What comes soon after one is not another: it would tear what the first set going, the taking back of what was done.
    """
    last = -_SAME_S

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SAME_S:
            last = now
            raise KeyboardInterrupt

    if disposition(SIGINT) == SIG_DFL:
        handle(SIGINT, interrupt)


def number(text: str) -> int:
    """A signal's number from ``15``, ``TERM``, ``sigterm``, ``RTMIN+3`` or ``RTMAX-1``.

    Raises:
        InvalidArgument: there is no such signal.
    """
    if text.isascii() and text.isdigit() and len(text) <= 3:
        found = int(text)
    else:
        found = _named(text.upper().removeprefix("SIG"))
    if 1 <= found <= LAST:
        return found
    raise InvalidArgument(f"unknown signal {text!r}")


def _named(name: str) -> int:
    for start, base in (("RTMIN", SIGRTMIN), ("RTMAX", SIGRTMAX)):
        if name.startswith(start):
            offset = name.removeprefix(start)
            if not offset:
                return base
            digits = offset[1:]
            if offset[0] in "+-" and digits.isascii() and digits.isdigit() and len(digits) <= 2:
                found = base + int(offset)
                return found if SIGRTMIN <= found <= SIGRTMAX else 0
            return 0
    name = _ALIASES.get(name, name)
    return NAMES.index(name) + 1 if name in NAMES else 0


def exit_status(wait_status: int) -> int:
    """What a shell makes of a wait(2) status: 0 to 255, 128 + n for a death by signal n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code
