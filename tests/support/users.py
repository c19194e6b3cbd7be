"""Running as an ordinary user, without altering the machine.

As root, a command runs in a mount namespace of its own in which /etc/passwd, /etc/group, /etc/subuid and /etc/subgid
are ours, as a user that exists there alone. As an ordinary user, it is that user. Its Python is one that it can read,
with hutch and what hutch needs, copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import grp
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence

from tests.support.files import private_directory
from tests.support.host import read
from tests.support.programs import run

UID = 64321
SUBIDS = (6_553_600, 65_536)
LIBRARIES = ("isal", "msgspec", "rich", "urllib3", "zstandard", "markdown_it", "mdurl", "pygments")
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclasses.dataclass(frozen=True)
class Installation:
    """hutch in a prefix that everybody can read.

    Attributes:
        prefix: of the virtual environment.
        python: its interpreter.
        hutch: path of the command.
        hutch_oci: path of the OCI runtime.
    """

    prefix: str

    @property
    def python(self) -> str:
        return f"{self.prefix}/bin/python"

    @property
    def hutch(self) -> str:
        return f"{self.prefix}/bin/hutch"

    @property
    def hutch_oci(self) -> str:
        return f"{self.prefix}/bin/hutch-oci"


@contextlib.contextmanager
def installation() -> Iterator[Installation]:
    """This checkout installed where everybody can run it: what a wheel holds, without the network that pip wants."""
    python = readable_python()
    if python is None:
        raise AssertionError(f"no python {_version()} that an ordinary user can run; install Debian's python3")
    with private_directory(f"session-{os.getpid()}", 0o755) as prefix:
        run([python, "-m", "venv", "--without-pip", prefix])
        target = f"{prefix}/lib/python{_version()}/site-packages"
        for source in (f"{CHECKOUT}/src/hutch", *_libraries()):
            name = os.path.basename(source)
            if os.path.isdir(source):
                shutil.copytree(source, f"{target}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, f"{target}/{name}")
        for name in ("hutch", "hutch-oci"):
            shutil.copy(f"{CHECKOUT}/scripts/{name}", f"{prefix}/bin/{name}")
            os.chmod(f"{prefix}/bin/{name}", 0o755)
        run(["chmod", "-R", "a+rX", prefix])
        run([f"{prefix}/bin/python", "-m", "compileall", "-q", target])
        yield Installation(prefix)


@functools.cache
def readable_python() -> str | None:
    """A python of our version that an ordinary user can run: its file and its library lie in readable directories."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3", f"/usr/bin/python{_version()}"):
        probe = [candidate, "-I", "-c", "import sys, ctypes, ssl; print('%d.%d' % sys.version_info[:2])"]
        if os.geteuid() == 0:
            # Through a shell: setpriv itself still has the capability to look into directories when it executes.
            shell = ["/bin/sh", "-c", 'exec "$0" "$@"']
            probe = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *shell, *probe]
        done = subprocess.run(probe, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode == 0 and done.stdout.strip() == _version():
            return candidate
    return None


@dataclasses.dataclass(frozen=True)
class OrdinaryUser:
    """A user without privileges.

    Attributes:
        uid: also its gid.
        name: as in the /etc/passwd that its commands see.
        home: its home directory, empty at first.
        runtime_dir: its XDG_RUNTIME_DIR.
        installed: its hutch.
        subids: the first of its subordinate ids and how many there are; (0, 0) for none.
        etc: the directory of the files put over those in /etc; empty where we are this user ourselves.
    """

    uid: int
    name: str
    home: str
    runtime_dir: str
    installed: Installation
    subids: tuple[int, int]
    etc: str

    @property
    def python(self) -> str:
        return self.installed.python

    @property
    def hutch(self) -> str:
        return self.installed.hutch

    @property
    def env(self) -> dict[str, str]:
        """Its whole environment, by default."""
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "XDG_RUNTIME_DIR": self.runtime_dir,
            "PATH": f"{self.installed.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
        }

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` as this user, from wherever."""
        if not self.etc:
            return list(argv)
        binds = "".join(
            f"mount --bind {shlex.quote(f'{self.etc}/{name}')} /etc/{name}; " for name in sorted(os.listdir(self.etc))
        )
        become = f"exec setpriv --reuid={self.uid} --regid={self.uid} --init-groups --inh-caps=-all -- "
        script = f"set -e; {binds}{become}{shlex.join(argv)}"
        return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - subprocess's own name for it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        check: bool = True,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `env` is added to the user's own."""
        full = {**self.env, **(env or {})}
        place = cwd or self.home
        return run(self.command(argv), input=input, env=full, cwd=place, check=check, timeout_s=timeout_s)

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.Popen[bytes]:
        """Start a command; options are Popen's. The process becomes `argv` by exec: its pid is the command's."""
        full = {**self.env, **(env or {})}
        return subprocess.Popen(self.command(argv), env=full, cwd=self.home, **options)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def ordinary_user(installed: Installation, *, subids: bool = True) -> Iterator[OrdinaryUser]:
    """A user for one test, with home and run directories of its own, with or without subordinate ids."""
    with private_directory(f"{os.getpid()}-user", 0o755) as base:
        home, runtime_dir, etc = f"{base}/home", f"{base}/run", f"{base}/etc"
        for path in (home, runtime_dir):
            os.mkdir(path, 0o700)
        if os.geteuid() != 0:
            entry = pwd.getpwuid(os.geteuid())
            ranges = _subordinate(entry.pw_name)
            yield OrdinaryUser(entry.pw_uid, entry.pw_name, home, runtime_dir, installed, ranges, "")
            return
        os.mkdir(etc, 0o755)
        _write_etc(etc, home, subids=subids)
        for path in (home, runtime_dir):
            os.chown(path, UID, UID)
        yield OrdinaryUser(UID, "hutcher", home, runtime_dir, installed, SUBIDS if subids else (0, 0), etc)


def _subordinate(user: str) -> tuple[int, int]:
    """The first range that /etc/subuid gives `user`."""
    for line in read("/etc/subuid").splitlines():
        name, first, count = line.split(":")
        if name == user:
            return int(first), int(count)
    return (0, 0)


def _write_etc(etc: str, home: str, *, subids: bool) -> None:
    known = "".join(":".join(map(str, entry)) + "\n" for entry in pwd.getpwall() if entry.pw_uid < 1000)
    groups = "".join(
        f"{entry.gr_name}:x:{entry.gr_gid}:{','.join(entry.gr_mem)}\n"
        for entry in grp.getgrall()
        if entry.gr_gid < 1000
    )
    ranges = f"hutcher:{SUBIDS[0]}:{SUBIDS[1]}\n" if subids else ""
    files = {
        "passwd": f"{known}hutcher:x:{UID}:{UID}::{home}:/bin/sh\n",
        "group": f"{groups}hutcher:x:{UID}:\n",
        "subuid": ranges,
        "subgid": ranges,
    }
    for name, text in files.items():
        if not os.path.exists(f"/etc/{name}"):  # nothing to bind over; then there are no subordinate ids either
            continue
        with open(f"{etc}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{etc}/{name}", 0o644)


def _libraries() -> Iterator[str]:
    """What hutch imports, in our own environment: packages, and the shared libraries beside them."""
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for name in sorted(os.listdir(place)):
            if name.partition(".")[0] in LIBRARIES and not name.endswith((".dist-info", ".pth")):
                yield f"{place}/{name}"


def _version() -> str:
    return "{}.{}".format(*sys.version_info[:2])
