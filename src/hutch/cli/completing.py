"""`hutch __complete WORD...`: what the last word, as far as it is typed, may become. The shells' scripts ask it.

The answer is cobra's: a line for each candidate, with a tab and a description if there is one, then a colon and what
the shell is to do besides, in bits. What cannot be found out is left out: a completion never complains.
"""

from __future__ import annotations

from hutch.cli import flags
from hutch.cli.main import ALIASES, COMMANDS, GROUPS, global_flags, load
from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from hutch.cli.command import Command
    from hutch.cli.flags import Flag
    from hutch.engine.engine import Engine

    Candidates = Iterable[tuple[str, str]]

NO_SPACE, NO_FILES, DIRECTORIES = 2, 4, 16
_NAMES_MAX = 1000
_CONTAINERS = """
    SELECT name, json_extract(record, '$.image') FROM containers
    WHERE ? IS NULL OR active = ? ORDER BY created DESC LIMIT ?
"""

_GROUP_TEXTS = {
    "container": "Manage containers",
    "image": "Manage images",
    "system": "Manage what is on this host",
    "volume": "Manage volumes",
}
# What the word after a flag may be, where the flag's own text does not list it; a trailing = or : goes on.
_NAMESPACE = ("host", "private")
_VALUES: dict[str, tuple[str, ...]] = {
    "type": ("container", "image", "volume"),
    "attach": ("stdin", "stdout", "stderr"),
    "cgroupns": _NAMESPACE,
    "format": ("json", "table"),
    "ipc": (*_NAMESPACE, "none", "shareable"),
    "log-driver": ("json-file", "local", "journald", "syslog", "none"),
    "pid": ("host", "private", "container:"),
    "platform": ("linux/amd64", "linux/arm64"),
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "security-opt": ("apparmor=", "label=", "no-new-privileges", "profile=", "seccomp=", "systempaths=unconfined"),
    "userns": ("auto", "host", "keep-id"),
    "uts": _NAMESPACE,
}
_FILE_KINDS = ("file", "path")
_SWITCH = ("true", "false")


class Answer:
    """Candidates and what the shell does besides."""

    def __init__(self, candidates: Candidates = (), directive: int = NO_FILES) -> None:
        self.candidates = list(candidates)
        self.directive = directive

    def lines(self, typed: str) -> list[str]:
        """The answer, as far as it begins with what was typed."""
        found = [(word, text) for word, text in self.candidates if word.startswith(typed)]
        ends = {word[-1:] for word, _ in found}
        directive = self.directive | (NO_SPACE if found and ends <= set("=:/") else 0)
        return [*(f"{word}\t{text}" if text else word for word, text in found), f":{directive}"]


def run(words: Sequence[str], given: dict[str, Any]) -> int:
    """Print the answer.

    Args:
        words: what follows ``hutch``; the last is the one being typed, and may be empty.
        given: global options of the command that asks.
    """
    typed = words[-1] if words else ""
    try:
        answer = _answer(list(words[:-1]), typed, given)
    except (HutchError, OSError):
        answer = Answer()
    print("\n".join(answer.lines(typed)))
    return 0


def _answer(before: list[str], typed: str, given: dict[str, Any]) -> Answer:
    table = global_flags()
    place = _place(table, before, interspersed=False)
    general, rest = {**given, **place.values}, place.rest
    if place.waiting is not None:
        return Answer(directive=DIRECTORIES)
    if not rest:
        return Answer(_flags(table)) if typed.startswith("-") else Answer(_first_words())
    if rest[0] in GROUPS and len(rest) == 1:
        return Answer(_second_words(rest[0]))
    name, arguments = (f"{rest[0]} {rest[1]}", rest[2:]) if rest[0] in GROUPS else (rest[0], rest[1:])
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        return Answer()
    return _of_command(load(name), arguments, typed, _Names(general))


class _Place:
    """Where in a command line the last word is.

    Attributes:
        waiting: the flag that it is the value of.
        rest: the arguments before it.
        flags_end: no flag may follow.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.rest: list[str] = []
        self.waiting: Flag | None = None
        self.flags_end = False


def _place(table: Sequence[Flag], words: Sequence[str], *, interspersed: bool) -> _Place:
    """Read a command line that need not be right."""
    by_name = {f"--{flag.name}": flag for flag in table} | {f"-{flag.short}": flag for flag in table if flag.short}
    place = _Place()
    for word in words:
        if place.waiting is not None:
            place.values[place.waiting.key] = word
            place.waiting = None
        elif place.flags_end or not word.startswith("-") or word == "-":
            place.rest.append(word)
            place.flags_end = place.flags_end or not interspersed
        elif word == "--":
            place.flags_end = True
        else:
            name, equals, value = word.partition("=")
            if not word.startswith("--"):  # of -it the last letter may wait for a value
                name = next((f"-{letter}" for letter in word[1:] if _waits(by_name.get(f"-{letter}"))), word)
                equals = equals or ("=" if not word.endswith(name[1:]) else "")
            flag = by_name.get(name)
            if flag is not None and equals:
                place.values[flag.key] = value
            elif _waits(flag):
                place.waiting = flag
    return place


def _waits(flag: Flag | None) -> bool:
    return flag is not None and flag.bare is None


def _first_words() -> Candidates:
    yield from ((name, text) for name, (_, text) in COMMANDS.items() if " " not in name)
    yield from ((group, _GROUP_TEXTS.get(group, "")) for group in GROUPS)
    yield from ((name, COMMANDS[target][1]) for name, target in ALIASES.items() if " " not in name)


def _second_words(group: str) -> Candidates:
    found = {name: COMMANDS[name][1] for name in COMMANDS} | {name: COMMANDS[to][1] for name, to in ALIASES.items()}
    return [(name.partition(" ")[2], text) for name, text in sorted(found.items()) if name.startswith(f"{group} ")]


def _flags(table: Sequence[Flag]) -> Candidates:
    known = [flag for flag in (*table, flags.HELP) if not flag.text.startswith("not supported")]
    yield from ((f"--{flag.name}", flag.text) for flag in sorted(known, key=lambda flag: flag.name))
    yield from ((f"-{flag.short}", flag.text) for flag in known if flag.short)


def _of_command(command: Command, arguments: list[str], typed: str, names: _Names) -> Answer:
    place = _place(command.flags, arguments, interspersed=command.interspersed)
    if place.waiting is not None:
        return _value(command, place.waiting, typed, names)
    if typed.startswith("-") and not place.flags_end:
        name, equals, value = typed.partition("=")
        flag = next((flag for flag in command.flags if name == f"--{flag.name}"), None)
        if flag is None or not equals:
            return Answer(_flags(command.flags))
        inner = _value(command, flag, value, names)
        return Answer(((f"{name}={word}", text) for word, text in inner.candidates), inner.directive)
    return _argument(command, place.rest, names)


def _value(command: Command, flag: Flag, typed: str, names: _Names) -> Answer:
    """What may stand after a flag."""
    if flag.name in ("network", "net"):
        return _after("container:", typed, names.containers, [("host", ""), ("none", ""), ("container:", "")])
    if flag.name == "pid":
        return _after("container:", typed, names.containers, [(word, "") for word in _VALUES["pid"]])
    if flag.name == "filter":
        return _filter(command, typed, names)
    if flag.name == "volumes-from":
        return Answer(names.containers())
    if flag.name == "volume":
        return Answer(((f"{name}:", "volume") for name, _ in names.volumes()), directive=0)
    if flag.name in _VALUES:
        return Answer((word, "") for word in _VALUES[flag.name])
    if flag.name in ("cap-add", "cap-drop"):
        from hutch.linux import caps

        return Answer((name.removeprefix("CAP_"), "") for name in ("ALL", *caps.NAMES))
    if flag.kind == "signal":
        from hutch.runtime import signals

        prefix = "SIG" if typed.startswith("SIG") else ""
        return Answer((f"{prefix}{name}", "") for name in signals.NAMES if name)
    if flag.kind == "" and flag.bare is not None:
        return Answer((word, "") for word in _SWITCH)
    if flag.kind in _FILE_KINDS:
        return Answer(directive=0)
    return Answer(directive=DIRECTORIES if flag.kind.startswith("dir") else NO_FILES)


def _after(prefix: str, typed: str, found: Callable[[], Candidates], others: Candidates) -> Answer:
    """Names behind a prefix, once that is typed."""
    if typed.startswith(prefix):
        return Answer((f"{prefix}{word}", text) for word, text in found())
    return Answer(others)


def _filter(command: Command, typed: str, names: _Names) -> Answer:
    """`key=`, then what the key is of; the keys are those that the flag's own text lists."""
    flag = next(flag for flag in command.flags if flag.name == "filter")
    key, equals, _ = typed.partition("=")
    if not equals:
        return Answer((word.strip(), "") for word in flag.text.split(",") if word.strip().endswith("="))
    found: dict[str, Callable[[], Candidates]] = {
        "ancestor": names.images,
        "dangling": lambda: [(word, "") for word in _SWITCH],
        "health": lambda: [(word, "") for word in ("starting", "healthy", "unhealthy", "none")],
        "name": names.volumes if command.name.startswith("volume") else names.containers,
        "network": lambda: [("host", ""), ("none", "")],
        "reference": names.images,
        "status": _statuses,
        "volume": names.volumes,
    }
    for word in ("before", "since"):
        found[word] = names.containers if command.name == "ps" else names.images
    return Answer((f"{key}={word}", text) for word, text in found.get(key, tuple)())


def _statuses() -> Candidates:
    from hutch.engine.container_filters import STATUSES

    return [(word, "") for word in STATUSES]


def _argument(command: Command, before: list[str], names: _Names) -> Answer:
    """What may stand at this place of the usage line."""
    if command.name == "cp":
        return Answer(((f"{name}:", text) for name, text in names.containers()), directive=0)
    words = command.usage.partition("[OPTIONS]")[2].split()
    if not words or (command.most is not None and len(before) >= command.most):
        return Answer()
    repeats = words[-1].rstrip("]").endswith("...")
    if len(before) >= len(words) and not repeats:
        return Answer()
    word = words[min(len(before), len(words) - 1)].strip("[].")
    if "CONTAINER" in word:
        found = names.containers(_active(command.name))
    elif "IMAGE" in word or word.startswith(("NAME[", "REPOSITORY")):
        found = names.images()
    elif word.startswith("NAME|"):
        found = [*names.containers(), *names.images(), *names.volumes()]
    elif word == "VOLUME" and command.name != "volume create":
        found = names.volumes()
    elif word.startswith(("FILE", "COMMAND", "ARG")):
        return Answer(directive=0)
    else:
        found = [(each, "") for each in ("bash", "fish", "zsh")] if command.name == "completion" else ()
    return Answer((name, text) for name, text in found if name not in before)


def _active(command: str) -> bool | None:
    """Whether a command is for containers that run, or for those that do not."""
    if command == "start":
        return False
    return True if command in ("attach", "exec", "kill", "pause", "stop", "top", "unpause") else None


class _Names:
    """The names of what is on this host, read without what it takes to change them.

    Args:
        general: the global options as far as they were typed.
    """

    def __init__(self, general: dict[str, Any]) -> None:
        self._general = general

    def _engine(self) -> Engine:
        from hutch.engine.engine import Engine

        return Engine(self._general.get("root"), self._general.get("state"))

    def containers(self, active: bool | None = None) -> Candidates:
        """Names of containers, newest first."""
        database = self._engine().database
        try:
            found = database.read(_CONTAINERS, (active, active, _NAMES_MAX))
        finally:
            database.close()
        return [(name, image or "") for name, image in found]

    def images(self) -> Candidates:
        """Names of images, as they are typed."""
        from hutch.image.reference import Reference
        from hutch.runtime import documents

        try:
            document = documents.read_object(f"{self._engine().root}/content/index.json")
        except FileNotFoundError:
            return []
        found = []
        for manifest in document.get("manifests", ())[:_NAMES_MAX]:
            name = manifest.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
            if name and "@" not in name:
                found.append((Reference.parse(name).familiar(), ""))
        return sorted(found)

    def volumes(self) -> Candidates:
        """Names of volumes that somebody gave."""
        import os

        try:
            names = os.listdir(f"{self._engine().root}/volumes")
        except FileNotFoundError:
            return []
        return [(name, "") for name in sorted(names)[:_NAMES_MAX] if len(name) != 64]
