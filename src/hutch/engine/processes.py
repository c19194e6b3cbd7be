"""`hutch top`: the processes of a container, as the host's /proc shows them.

Nothing is executed in the container, and nothing of its files is read (CVE-2022-1227). The columns of `ps -ef`, and
of lists for `-o`, are made here; for anything else the host's own ps is asked about these pids.
"""

from __future__ import annotations

import os
import time

from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LIMIT = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROGRAMS = ("/usr/bin/ps", "/bin/ps")
_PATIENCE_S = 10
_PTS = range(136, 144)
_FULL = "user,pid,ppid,c,stime,tty,time,args"


class Process:
    """One process, read from /proc.

    Args:
        pid: in the host's namespace.

    Raises:
        OSError: it has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        text = _read(f"/proc/{pid}/stat").decode("utf-8", "backslashreplace")
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        stat = text[text.rindex(")") + 2 :].split()
        self.state, self.parent, self.group, self.session = stat[0], int(stat[1]), int(stat[2]), int(stat[3])
        self.tty, self.foreground = int(stat[4]), int(stat[5])
        self.cpu_s = (int(stat[11]) + int(stat[12])) / _TICKS
        self.priority, self.nice, self.threads = int(stat[15]), int(stat[16]), int(stat[17])
        self.age_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / _TICKS)
        self.virtual, self.resident = int(stat[20]) // 1024, int(stat[21]) * _PAGE // 1024
        status = dict(line.split(b":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if b":" in line)
        self.uids = [int(word) for word in status.get(b"Uid", b"0 0 0 0").split()]
        self.gids = [int(word) for word in status.get(b"Gid", b"0 0 0 0").split()]
        self.locked = status.get(b"VmLck", b"0").split()[0] not in (b"0", b"")
        words = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
        self.command = b" ".join(words).decode("utf-8", "backslashreplace")

    @property
    def terminal(self) -> str:
        """Its controlling terminal, as ps calls it."""
        major, minor = os.major(self.tty), os.minor(self.tty)
        if major in _PTS:
            return f"pts/{minor + (major - _PTS[0]) * 256}"
        return f"tty{minor}" if major == 4 and minor < 64 else "?"

    @property
    def flags(self) -> str:
        """The state with BSD's letters."""
        letters = self.state
        letters += "<" if self.nice < 0 else "N" if self.nice > 0 else ""
        letters += "L" if self.locked else ""
        letters += "s" if self.session == self.pid else ""
        letters += "l" if self.threads > 1 else ""
        return letters + ("+" if self.foreground == self.group and self.tty else "")

    @property
    def cpu_percent(self) -> float:
        """CPU time as a part of its age."""
        return self.cpu_s * 100 / self.age_s if self.age_s else 0.0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(_LIMIT)


def _clock(seconds: float) -> str:
    """``[days-]hours:minutes:seconds``."""
    days, rest = divmod(int(seconds), 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{text}" if days else text


def _elapsed(process: Process) -> str:
    text = _clock(process.age_s)
    return text.removeprefix("00:")


def _began(process: Process) -> str:
    began, now = time.localtime(time.time() - process.age_s), time.localtime()
    if began.tm_year != now.tm_year:
        return time.strftime("%Y", began)
    return time.strftime("%H:%M" if began.tm_yday == now.tm_yday else "%b%d", began)


def _memory(process: Process) -> str:
    whole = os.sysconf("SC_PHYS_PAGES") * _PAGE // 1024
    return f"{process.resident * 100 / whole:.1f}"


class _Names:
    """The host's names of users or groups; those of namespaces are numbers to the host."""

    def __init__(self, path: str) -> None:
        self._path, self._found = path, dict[int, str]()

    def __call__(self, number: int) -> str:
        if not self._found:
            self._found = {-1: ""}
            for line in _read(self._path).splitlines():
                fields = line.split(b":")
                if len(fields) > 2 and fields[2].isdigit():
                    self._found.setdefault(int(fields[2]), os.fsdecode(fields[0]))
        return self._found.get(number, str(number))


_USERS, _GROUPS = _Names("/etc/passwd"), _Names("/etc/group")

# Name of a column for -o → its heading, and what it shows
_COLUMNS: dict[str, tuple[str, Callable[[Process], object]]] = {
    "args": ("COMMAND", lambda one: one.command or f"[{one.name}]"),
    "c": ("C", lambda one: min(99, int(one.cpu_percent))),
    "comm": ("COMMAND", lambda one: one.name),
    "egid": ("EGID", lambda one: one.gids[1]),
    "etime": ("ELAPSED", _elapsed),
    "etimes": ("ELAPSED", lambda one: int(one.age_s)),
    "euid": ("EUID", lambda one: one.uids[1]),
    "gid": ("GID", lambda one: one.gids[1]),
    "group": ("GROUP", lambda one: _GROUPS(one.gids[1])),
    "ni": ("NI", lambda one: one.nice),
    "nlwp": ("NLWP", lambda one: one.threads),
    "pcpu": ("%CPU", lambda one: f"{one.cpu_percent:.1f}"),
    "pgid": ("PGID", lambda one: one.group),
    "pid": ("PID", lambda one: one.pid),
    "pmem": ("%MEM", _memory),
    "ppid": ("PPID", lambda one: one.parent),
    "rgroup": ("RGROUP", lambda one: _GROUPS(one.gids[0])),
    "rss": ("RSS", lambda one: one.resident),
    "ruser": ("RUSER", lambda one: _USERS(one.uids[0])),
    "s": ("S", lambda one: one.state),
    "sid": ("SID", lambda one: one.session),
    "stat": ("STAT", lambda one: one.flags),
    "stime": ("STIME", _began),
    "time": ("TIME", lambda one: _clock(one.cpu_s)),
    "tty": ("TT", lambda one: one.terminal),
    "uid": ("UID", lambda one: one.uids[1]),
    "user": ("USER", lambda one: _USERS(one.uids[1])),
    "vsz": ("VSZ", lambda one: one.virtual),
}
_SAME = {
    "%cpu": "pcpu", "%mem": "pmem", "cmd": "args", "command": "args", "cputime": "time", "egroup": "group",
    "euser": "user", "nice": "ni", "pgrp": "pgid", "rssize": "rss", "sess": "sid", "session": "sid", "state": "s",
    "thcount": "nlwp", "tname": "tty", "tt": "tty", "ucmd": "comm", "ucomm": "comm", "uname": "user", "vsize": "vsz",
}  # fmt: skip
_HEADINGS = {"cmd": "CMD", "tname": "TTY", "state": "S"}
_FULL_HEADINGS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def table(pids: Sequence[int], options: Sequence[str]) -> list[list[str]]:
    """Headings, then a row for each process; the last cell may have blanks in it.

    Args:
        pids: in the host's namespace; those that end meanwhile are left out.
        options: of ps; none is ``-ef``.

    Raises:
        InvalidArgument: ps does not know an option, or the pid is not among the columns asked for.
        NotSupported: the host has no ps, and the options need it.
    """
    if options and (words := _own_columns(options)) is None:
        return _by_ps(pids, options)
    if not options or words == []:
        headings, words = list(_FULL_HEADINGS), _FULL.split(",")
    else:
        headings = [_HEADINGS.get(word, _COLUMNS[_SAME.get(word, word)][0]) for word in words or ()]
    if "PID" not in headings:
        raise InvalidArgument("couldn't find PID field in ps output", hint="add pid to the columns")
    shown = [_COLUMNS[_SAME.get(word, word)][1] for word in words or ()]
    rows = [headings]
    for pid in sorted(pids):
        try:
            process = Process(pid)
        except (OSError, ValueError):
            continue
        rows.append([str(show(process)) for show in shown])
    return rows


def _own_columns(options: Sequence[str]) -> list[str] | None:
    """The columns asked for by options that are known here: an empty list for ``-f``, None for unknown options."""
    found: list[str] = []
    full = False
    words = list(options)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word.startswith("--"):
            return None
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter == "f":
                full = True
            elif letter == "o":
                names = letters or (words.pop(0) if words else "")
                letters = ""
                columns = names.replace(" ", ",").split(",")
                if any(_SAME.get(name, name) not in _COLUMNS for name in columns):
                    return None
                found += columns
            elif letter not in "eA":  # which processes are meant is not for ps to say
                return None
    return found if found and not full else [] if full and not found else None


def _by_ps(pids: Sequence[int], options: Sequence[str]) -> list[list[str]]:
    """The host's ps, of which the lines of these pids are kept."""
    import subprocess

    program = next((path for path in _PROGRAMS if os.access(path, os.X_OK)), "")
    if not program:
        raise NotSupported("top: the host has no ps program for these options", hint="use -ef or -o COLUMNS")
    only = ["-q", ",".join(map(str, pids)) or "0"]
    for more in (only, []):  # some options do not go together with -q
        try:
            done = subprocess.run(
                [program, *options, *more], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                env={"LC_ALL": "C.UTF-8", "COLUMNS": "4096"}, timeout=_PATIENCE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InvalidArgument(f"{program}: does not end", hint="give it options that print one table") from None
        if done.returncode == 0 or not done.stderr:
            break
    lines = done.stdout.decode("utf-8", "backslashreplace").splitlines()
    if not lines or (done.returncode and done.stderr):
        reason = done.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise InvalidArgument(f"{program}: {reason or 'failed'}")
    headings = lines[0].split()
    if "PID" not in headings:
        raise InvalidArgument("couldn't find PID field in ps output", hint="add pid to the columns")
    column, wanted = headings.index("PID"), {str(pid) for pid in pids}
    rows = [line.split(None, len(headings) - 1) for line in lines[1:]]
    return [headings, *(row for row in rows if len(row) > column and row[column] in wanted)]
