"""checkpoint and restore, which this runtime does not have: their flags are read, so that the refusal is about them."""

from __future__ import annotations

from hutch.errors import NotSupported
from hutch.runtime.arguments import BOOLEAN, TEXT, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.arguments import Options
    from hutch.runtime.commands.context import Context

_FLAGS = tuple(
    Flag(name, TEXT, "")
    for name in (
        "image-path work-path parent-path status-fd page-server manage-cgroups-mode empty-ns bundle pid-file "
        "console-socket lsm-profile lsm-mount-context preserve-fds"
    ).split()
) + tuple(
    Flag(name, BOOLEAN, "")
    for name in (
        "leave-running tcp-established ext-unix-sk shell-job lazy-pages file-locks pre-dump auto-dedup detach "
        "no-subreaper no-pivot"
    ).split()
)


def _refuse(context: Context, options: Options, arguments: list[str]) -> int:
    del context, options, arguments
    raise NotSupported("checkpoint and restore: not supported by this runtime")


COMMANDS = {
    "checkpoint": Command("<container-id>", _refuse, flags=_FLAGS),
    "restore": Command("<container-id>", _refuse, flags=_FLAGS),
}
