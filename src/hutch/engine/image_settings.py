"""`ImageSettings`: the few fields of an image's configuration that may influence a container.

An allow-list (CVE-2014-6408, CVE-2026-53488): labels are carried along as data and nothing is ever read from them;
annotations, HostConfig and unknown keys do not exist here.
"""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.engine.values import has_control
from hutch.errors import InvalidConfig
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class ImageSettings(Record):
    """What an image asks for. Everything in it is untrusted.

    Attributes:
        healthcheck: Docker's object as JSON, empty for none.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    architecture: str = ""
    healthcheck: str = ""


def image_settings(config: Any, architecture: str) -> ImageSettings:
    """Take the allowed fields of a parsed image configuration's ``config`` object.

    Args:
        config: with the attributes of OCI image-spec config.md in snake case.
        architecture: the image's, in GOARCH words.

    Raises:
        InvalidConfig: a NUL or a control character where it would end up in a file or a system call.
    """
    settings = ImageSettings(
        user=config.user or "",
        env=_texts(config.env),
        entrypoint=_texts(config.entrypoint),
        cmd=_texts(config.cmd),
        workdir=config.working_dir or "",
        volumes=_keys(config.volumes),
        labels=tuple((config.labels or {}).items()),
        exposed_ports=_keys(config.exposed_ports),
        stop_signal=config.stop_signal or "",
        shell=_texts(config.shell),
        architecture=architecture,
        healthcheck=_healthcheck(config.healthcheck),
    )
    for what, text in (("User", settings.user), ("WorkingDir", settings.workdir), ("StopSignal", settings.stop_signal)):
        if has_control(text):
            raise InvalidConfig(f"image: {what} {text[:64]!r} has control characters")
    for text in (*settings.env, *settings.entrypoint, *settings.cmd, *settings.volumes):
        if "\0" in text:
            raise InvalidConfig("image: a NUL in Env, Entrypoint, Cmd or Volumes")
    return settings


def _healthcheck(found: Any) -> str:
    if found is None or not found.test:
        return ""
    if any("\0" in word for word in found.test):
        raise InvalidConfig("image: a NUL in Healthcheck")
    return documents.dump(
        {
            "Test": list(found.test),
            "Interval": max(0, found.interval),
            "Timeout": max(0, found.timeout),
            "StartPeriod": max(0, found.start_period),
            "StartInterval": max(0, found.start_interval),
            "Retries": max(0, found.retries),
        }
    )


def _texts(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(values or ())


def _keys(values: Mapping[str, Any] | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(values or ())
