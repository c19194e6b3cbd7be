"""`--change`: the Dockerfile instructions that alter an image's configuration, applied to it as plain data.

Known are CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR, in their forms of the
Dockerfile reference; nothing is expanded.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

from hutch.errors import InvalidArgument

_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"\A([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?\Z")
_TEXT_MAX = 64 << 10
_DURATION = re.compile(r"\A(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+\Z")
_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def apply_changes(config: dict[str, Any], changes: tuple[str, ...] | list[str]) -> None:
    """Alter `config` (the "config" object of an image configuration) as the instructions say.

    Raises:
        InvalidArgument: an instruction that is unknown here, or does not parse.
    """
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidArgument(f"change {change[:100]!r}: not one of {', '.join(sorted(_INSTRUCTIONS))}")
        if not rest.strip() or len(rest) > _TEXT_MAX or "\0" in rest:
            raise InvalidArgument(f"change {change[:100]!r}: needs an argument")
        instruction(config, rest.strip())


def _command(text: str) -> list[str]:
    """The JSON form, or the shell form wrapped in a shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [*_SHELL, text]


def _pairs(text: str, what: str) -> list[tuple[str, str]]:
    """`key=value …` with quotes, or the old `key value`."""
    head = text.split(None, 1)
    if "=" not in head[0] and len(head) == 2:
        return [(head[0], head[1])]
    found = []
    for word in _words(text):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"change {what} {text[:100]!r}: not key=value")
        found.append((key, value))
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as problem:
        raise InvalidArgument(f"change {text[:100]!r}: {str(problem).lower()}") from None


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = _command(text)
    config.pop("Cmd", None)  # a new entry point does not take the arguments of the old one


def _env(config: dict[str, Any], text: str) -> None:
    for key, value in _pairs(text, "ENV"):
        kept = [entry for entry in config.get("Env", []) if entry.partition("=")[0] != key]
        config["Env"] = [*kept, f"{key}={value}"]


def _expose(config: dict[str, Any], text: str) -> None:
    for word in text.split():
        match = _PORT.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last < 65536:
            raise InvalidArgument(
                f"change EXPOSE {word[:50]!r}: not a port, or a range of them, with an optional protocol"
            )
        ports: dict[str, Any] = {f"{port}/{match[3] or 'tcp'}": {} for port in range(first, last + 1)}
        config["ExposedPorts"] = {**config.get("ExposedPorts", {}), **ports}


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**config.get("Labels", {}), **dict(_pairs(text, "LABEL"))}


def _user(config: dict[str, Any], text: str) -> None:
    config["User"] = text


def _workdir(config: dict[str, Any], text: str) -> None:
    if not text.startswith("/"):
        text = f"{config.get('WorkingDir') or '/'}".rstrip("/") + "/" + text
    config["WorkingDir"] = text


def _volume(config: dict[str, Any], text: str) -> None:
    words = _command(text) if text.startswith("[") else _words(text)
    config["Volumes"] = {**config.get("Volumes", {}), **{word: {} for word in words}}


def _stop_signal(config: dict[str, Any], text: str) -> None:
    if not re.match(r"\A(?:SIG)?[A-Z0-9+-]{1,16}\Z", text):
        raise InvalidArgument(f"change STOPSIGNAL {text[:50]!r}: not a signal")
    config["StopSignal"] = text


def _on_build(config: dict[str, Any], text: str) -> None:
    config["OnBuild"] = [*config.get("OnBuild", []), text]


def _healthcheck(config: dict[str, Any], text: str) -> None:
    if text.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    check: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        text = text.strip()
        if name == "retries" and value.isdigit():
            check["Retries"] = int(value)
        elif name in _DURATIONS and _DURATION.match(value):
            parts = re.findall(r"([0-9.]+)([a-z]+)", value)
            check[_DURATIONS[name]] = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
        else:
            raise InvalidArgument(f"change HEALTHCHECK: option {option[:50]!r} is not right")
    word, _, rest = text.partition(" ")
    if word.upper() != "CMD" or not rest.strip():
        raise InvalidArgument("change HEALTHCHECK: needs CMD and a command, or NONE")
    rest = rest.strip()
    check["Test"] = ["CMD", *_command(rest)] if rest.startswith("[") else ["CMD-SHELL", rest]
    config["Healthcheck"] = check


_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
