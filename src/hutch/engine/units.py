"""systemd units: one that recovers after a boot, and one for a container that systemd is to look after. Pure."""

from __future__ import annotations

from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RECOVER = "hutch-recover.service"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@_=.,:/+-")


def unit_name(container: str) -> str:
    """The file of a container's unit."""
    return f"hutch-{container}.service"


def recover_unit(command: Sequence[str], *, user: bool) -> str:
    """The unit that runs once after a boot.

    Args:
        command: how hutch is started, with its global options.
        user: for an ordinary user's systemd.

    Monitors that it starts stay in its cgroup: KillMode=process leaves them alone when it is restarted.
    """
    return _unit(
        ("Unit", ["Description=Recover containers of hutch after a boot", *_after(user)]),
        (
            "Service",
            [
                "Type=oneshot",
                "RemainAfterExit=yes",
                f"ExecStart={_line([*command, 'system', 'recover'])}",
                "KillMode=process",
                "TasksMax=infinity",
            ],
        ),
        ("Install", [f"WantedBy={_target(user)}"]),
    )


def container_unit(command: Sequence[str], name: str, *, user: bool, stop_timeout_s: int) -> str:
    """The unit that runs a container and is its restart policy.

    Args:
        command: how hutch is started, with its global options.
        name: of the container.
        user: for an ordinary user's systemd.
        stop_timeout_s: seconds that the container has to end in.
    """
    return _unit(
        ("Unit", [f"Description=Container {name} of hutch", *_after(user)]),
        (
            "Service",
            [
                "Type=exec",
                f"ExecStart={_line([*command, 'start', '--attach', name])}",
                f"ExecStop={_line([*command, 'stop', name])}",
                "Restart=on-failure",
                "KillMode=process",
                f"TimeoutStopSec={stop_timeout_s + 20}",
                "TasksMax=infinity",
            ],
        ),
        ("Install", [f"WantedBy={_target(user)}"]),
    )


def _after(user: bool) -> list[str]:
    # A user's systemd knows no network target, and starts long after the file systems are there.
    return [] if user else ["Wants=network-online.target", "After=network-online.target local-fs.target"]


def _target(user: bool) -> str:
    return "default.target" if user else "multi-user.target"


def _unit(*sections: tuple[str, list[str]]) -> str:
    return "\n".join(f"[{title}]\n" + "".join(f"{line}\n" for line in lines) for title, lines in sections)


def _line(words: Sequence[str]) -> str:
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word of a command line in a unit (systemd.service(5), COMMAND LINES).

    Raises:
        InvalidArgument: it has control characters, which have no business there.
    """
    if not word.isprintable():
        raise InvalidArgument(f"{word[:64]!r}: cannot stand in a unit")
    text = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.issuperset(word):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
