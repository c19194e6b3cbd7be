"""What a log says of its container: the tag, and the labels and variables that its options choose."""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_TAG = "{{.ID}}"
DAEMON_NAME = "hutch"
_SHORT = 12


class LogSource(Record):
    """The container whose output a log holds.

    Attributes:
        image: what the user called it; image_id is its digest.
        command: the program and its arguments.
        created: RFC 3339.
        labels: key → value; None is none.
        env: ``NAME=value`` each.
    """

    container_id: str
    name: str = ""
    image: str = ""
    image_id: str = ""
    command: tuple[str, ...] = ()
    created: str = ""
    labels: Mapping[str, str] | None = None
    env: tuple[str, ...] = ()


def _fields(source: LogSource) -> dict[str, str]:
    return {
        "ID": source.container_id[:_SHORT],
        "FullID": source.container_id,
        "Name": source.name,
        "ImageName": source.image,
        "ImageID": source.image_id.removeprefix("sha256:")[:_SHORT],
        "ImageFullID": source.image_id,
        "DaemonName": DAEMON_NAME,
    }


def tag(template: str, source: LogSource) -> str:
    """Fill in a tag's template: docker's fields, and nothing else of Go's templates.

    Raises:
        InvalidArgument: another field, or what is no field.
    """
    fields = _fields(source)
    made, rest = "", template
    while rest:
        literal, opening, rest = rest.partition("{{")
        made += literal
        if opening:
            action, closing, rest = rest.partition("}}")
            name = action.strip()
            if not closing:
                raise InvalidArgument(f"log tag template parsing error: unclosed action in '{template[:64]}'")
            if name.removeprefix(".") not in fields or not name.startswith("."):
                raise InvalidArgument(
                    f"log tag template: '{{{{{name[:64]}}}}}' is not supported",
                    hint="these are: " + " ".join(f"{{{{.{field}}}}}" for field in fields),
                )
            made += fields[name[1:]]
    return made


def attributes(options: Mapping[str, str], source: LogSource) -> dict[str, str]:
    """The labels and variables that ``labels``, ``labels-regex``, ``env`` and ``env-regex`` choose.

    Raises:
        InvalidArgument: a pattern that is none.
    """
    env = dict(entry.split("=", 1) for entry in source.env if "=" in entry)
    return {
        **_chosen(options, "labels", source.labels or {}),
        **_chosen(options, "env", env),
    }


def _chosen(options: Mapping[str, str], option: str, found: Mapping[str, str]) -> dict[str, str]:
    names: Iterable[str] = options.get(option, "").split(",")
    chosen = {name: found[name] for name in names if name in found}
    if pattern := options.get(f"{option}-regex", ""):
        matches = compiled(f"{option}-regex", pattern)
        chosen.update({name: value for name, value in found.items() if matches.search(name)})
    return chosen


def compiled(option: str, pattern: str) -> re.Pattern[str]:
    """A pattern that the user gave.

    Raises:
        InvalidArgument: it is none.
    """
    import re  # 6 ms, for the few who have one

    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(f"invalid value for {option}: {error}: `{pattern[:64]}`") from None


if TYPE_CHECKING:
    import re
