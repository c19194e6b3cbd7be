"""Run one of hutch's helper modules in a fresh interpreter, and read its bounded report.

A caller may have threads, so nothing is forked here: `subprocess` starts the child by vfork and exec. The child is
`python -I -S -B` with only the directories on its path that hutch and its libraries lie in; it gets no environment.

The report is a list of byte strings with NULs between them; the first says what it is:

    ok      and the results
    error   class of hutch.errors, message, hint
    os      errno, text, file name
"""

from __future__ import annotations

import os
import sys

from hutch import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT_BYTES_MAX = 64 << 10
_LIBRARIES = ("hutch", "isal", "zstandard")
_PROGRAM = """\
import sys
module, paths = sys.argv[1:3]
sys.path[:0] = paths.split(chr(10))
sys.exit(__import__(module, fromlist=["main"]).main(sys.argv[3:]))
"""


def library_paths() -> str:
    """The directories that the helper's imports come from, a line each."""
    import importlib.util

    found: list[str] = []
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            directory = os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
            if directory not in found:
                found.append(directory)
    return "\n".join(found)


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The words that run `module.main(arguments)` in a fresh interpreter."""
    return [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, module, library_paths(), *arguments]


def run(module: str, arguments: Sequence[str], *, stdin: int | None = None, held: Sequence[int] = ()) -> list[bytes]:
    """Run `module.main(arguments)` in a child and return what it reported.

    Args:
        module: of hutch; its `main` ends by `report` or `report_failure`.
        arguments: strings without NUL; in them, paths the child trusts.
        stdin: descriptor the child reads its input from; stays the caller's; None for none.
        held: descriptors that the child keeps open to its end: locks that last as long as its work, even orphaned.

    Raises:
        HutchError: what the child reported, of the class it named.
        OSError: what the kernel told the child.
        Internal: the child ended without a report.
    """
    import subprocess  # 14 ms: not for who needs no helper

    process = subprocess.Popen(
        command(module, arguments),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
        pass_fds=held,
        start_new_session=True,  # a control-C is for us, who then end the child
    )
    try:
        with process:
            assert process.stdout is not None
            data = process.stdout.read(REPORT_BYTES_MAX)
    except BaseException:
        process.kill()
        process.wait()  # what it holds is free when we go on
        raise
    return understood(module, data, process.returncode)


def understood(module: str, data: bytes, status: int) -> list[bytes]:
    """The results in a report, or the error that it tells of.

    Args:
        module: who reported.
        data: the report.
        status: the exit status, for one that said nothing.

    Raises:
        HutchError, OSError, Internal: as `run`.
    """
    fields = data.split(b"\0")
    kind = fields.pop(0)
    if kind == b"ok" and status == 0:
        return fields
    if kind == b"error" and len(fields) == 3:
        name, message, hint = (field.decode("utf-8", "replace") for field in fields)
        found = getattr(errors, name, None)
        if isinstance(found, type) and issubclass(found, errors.HutchError):
            if found in (errors.DigestMismatch, errors.InvalidState, errors.ContainerSetupFailed):
                found = errors.Internal
            raise found(message, hint=hint)
    if kind == b"os" and len(fields) == 3 and fields[0].isdigit():
        raise OSError(int(fields[0]), fields[1].decode("utf-8", "replace"), fields[2].decode("utf-8", "replace"))
    how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
    raise errors.Internal(f"helper {module.rpartition('.')[2]}: {how} without a report")
