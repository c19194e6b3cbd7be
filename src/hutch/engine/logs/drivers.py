"""The log drivers: their options, checked before a container exists, and the writer that its monitor is given.

Importing this costs a monitor no more than `os`, `struct` and `codecs`; what one driver needs is imported with it.
"""

from __future__ import annotations

import os

from hutch.engine import values
from hutch.engine.logs import tags
from hutch.engine.logs.lines import LineWriter
from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from hutch.engine.logs.lines import LogWriter as LogWriter  # noqa: PLC0414  # part of this module's face
    from hutch.engine.logs.lines import Sink
    from hutch.engine.logs.rotation import RotatedFile

    Parsed = TypeVar("Parsed")

LogSource = tags.LogSource

DRIVERS = ("json-file", "local", "journald", "syslog", "none")
DEFAULT = "json-file"
NON_BLOCKING = "non-blocking"
_MIB = 1 << 20
_MOST_FILES = 1000
_FILES = ("max-size", "max-file", "compress")
_CHOSEN = ("labels", "labels-regex", "env", "env-regex", "tag")
_SYSLOG = (
    "syslog-address syslog-facility syslog-format syslog-tls-ca-cert syslog-tls-cert syslog-tls-key "
    "syslog-tls-skip-verify".split()
)
_COMMON = ("mode", "max-buffer-size")
_KNOWN = {
    "json-file": (*_FILES, *_CHOSEN),
    "local": _FILES,
    "journald": _CHOSEN,
    "syslog": (*_CHOSEN, *_SYSLOG),
}
# Docker keeps a second copy of what syslog and journald get; we read the journal itself, and syslog is not read.
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")


def checked_options(driver: str, options: Mapping[str, str]) -> None:
    """Check --log-driver and all --log-opt together.

    Args:
        driver: one of DRIVERS; empty is the default.
        options: by name, as the user gave them.

    Raises:
        InvalidArgument: no such driver or option, or a value that it does not take.
        NotSupported: an option of docker's that has no counterpart.
    """
    driver = driver or DEFAULT
    if driver not in DRIVERS:
        raise InvalidArgument(
            f"logger: no log driver named '{driver[:64]}' is registered", hint=f"there are {', '.join(DRIVERS)}"
        )
    if driver == "none":
        if options:
            raise InvalidArgument("invalid logging opts for driver none")
        return
    for name in options:
        if name in _CACHE:
            raise NotSupported(f"log opt '{name}' is not supported: there is no second copy of a log")
        if name not in (*_KNOWN[driver], *_COMMON):
            said = f"log driver {driver}" if driver == "local" else f"{driver} log driver"
            raise InvalidArgument(f"unknown log opt '{name[:64]}' for {said}")
    mode = options.get("mode", "")
    if mode not in ("", "blocking", NON_BLOCKING):
        raise InvalidArgument(f"logger: logging mode not supported: {mode[:64]}")
    if "max-buffer-size" in options:
        if mode != NON_BLOCKING:
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _value("max-buffer-size", options["max-buffer-size"], values.parse_bytes)
    if driver in ("json-file", "local"):
        file_limits(driver, options)
    tags.tag(options.get("tag", ""), LogSource(container_id=""))
    tags.attributes(options, LogSource(container_id=""))
    if driver == "syslog":
        from hutch.engine.logs import address

        address.parse(options)


def _value(name: str, text: str, parse: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for {name}: {error}") from None


def file_limits(driver: str, options: Mapping[str, str]) -> tuple[int, int, bool]:
    """(bytes a file, number of files, whether rotated ones are compressed).

    Raises:
        InvalidArgument: what is none.
    """
    local = driver == "local"
    size, files, compress = (20 * _MIB, 5, True) if local else (10 * _MIB, 3, False)
    if "max-size" in options:
        size = _value("max-size", options["max-size"], values.parse_decimal_bytes)
        if size <= 0:
            raise InvalidArgument("max-size must be a positive number")
    if "max-file" in options:
        files = _value("max-file", options["max-file"], values.parse_int)
        if not 1 <= files <= _MOST_FILES:
            raise InvalidArgument(
                "max-file cannot be less than 1" if files < 1 else f"max-file cannot be more than {_MOST_FILES}"
            )
    if "compress" in options:
        compress = _value("compress", options["compress"], values.parse_bool)
        if compress and files < 2:
            raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return size, files, compress and files > 1


def file_name(driver: str, directory: str) -> str:
    """The name of the newest log file in a container's directory."""
    return f"{os.path.basename(directory)}-json.log" if driver == "json-file" else "local.log"


def open_writer(driver: str, options: Mapping[str, str], directory: str, source: LogSource) -> LogWriter:
    """What a container's monitor writes its output to.

    Args:
        driver: one of DRIVERS; empty is the default.
        options: went through `checked_options` before.
        directory: ``containers/<id>`` of the engine's own data root.
        source: the container.

    Raises:
        OSError: the file cannot be made.
        Unavailable: there is no journal, or no syslog where its address is local.
    """
    driver = driver or DEFAULT
    if driver == "none":
        return _Nothing()
    sink, interrupt, queued = _sink(driver, options, directory, source)
    if queued or options.get("mode") == NON_BLOCKING:
        from hutch.engine.logs.ring import DEFAULT_LIMIT, Ring

        limit = values.parse_bytes(options["max-buffer-size"]) if "max-buffer-size" in options else DEFAULT_LIMIT
        sink = Ring(sink, limit, interrupt)
    return LineWriter(sink)


def _sink(
    driver: str, options: Mapping[str, str], directory: str, source: LogSource
) -> tuple[Sink, Callable[[], None] | None, bool]:
    """The driver's sink, how to interrupt it, and whether it may take long."""
    if driver == "json-file":
        from hutch.engine.logs import jsonfile

        attrs = {"tag": tags.tag(options["tag"], source)} if options.get("tag") else {}
        file = _rotated(driver, options, directory, jsonfile.whole)
        return jsonfile.JsonFile(file, {**attrs, **tags.attributes(options, source)}), None, False
    if driver == "local":
        from hutch.engine.logs import localfile

        return localfile.LocalFile(_rotated(driver, options, directory, localfile.whole)), None, False
    if driver == "journald":
        from hutch.engine.logs.journald import Journal

        return Journal(options, source), None, False
    from hutch.engine.logs.syslog import Syslog

    syslog = Syslog(options, source)
    return syslog, syslog.interrupt, True


def _rotated(driver: str, options: Mapping[str, str], directory: str, whole: Callable[[int], int]) -> RotatedFile:
    from hutch.engine.logs.rotation import RotatedFile

    size, files, compress = file_limits(driver, options)
    name = file_name(driver, directory)
    return RotatedFile(directory, name, max_size=size, max_files=files, compress=compress, whole=whole)


class _Nothing:
    """The driver "none"."""

    def write(self, stream: int, data: bytes, time_nanos: int) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""
