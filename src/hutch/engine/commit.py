"""`hutch commit`: a container's changes as a new layer on its image, and its settings as that of the new image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hutch.engine.changes import open_layer
from hutch.engine.freezing import StandingStill
from hutch.engine.inside import read_spec
from hutch.errors import ImageNotFound, NotSupported
from hutch.image import committing
from hutch.image.changes import apply_changes

if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory, ContainerRecord
    from hutch.engine.engine import Engine
    from hutch.image.image import Image
    from hutch.image.reference import Reference
    from hutch.spec.runtime import Spec


def commit(
    engine: Engine,
    directory: ContainerDirectory,
    reference: Reference | None = None,
    *,
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool | None = None,
) -> tuple[Image, dict[str, int]]:
    """Make an image of a container, which may be running.

    Args:
        engine: whose container.
        directory: the container.
        reference: name of the image, or None.
        author: for the history.
        message: for the history too.
        changes: Dockerfile instructions, applied last; see `hutch.image.changes`.
        pause: let the container stand still while its files are read, and go on whatever happens here; None does so
            where the host can, which an ordinary user's may not.

    Returns:
        The image, and what was left out of its layer and how often.

    Raises:
        NotSupported: the container was not made from an image, or cannot be paused although that was asked for.
        ImageNotFound: its image has been removed.
        InvalidArgument: a change is not right.
    """
    record = directory.record
    if not record.image_id:
        raise NotSupported(
            f"commit {record.name}: it was not made from an image",
            hint=f"hutch export {record.name} | hutch import - makes one of all its files",
        )
    store = engine.images
    try:
        with store.using(record.image_id) as base, ExitStack() as held:
            config = settings(committing.settings_of(store, base), record, read_spec(directory))
            apply_changes(config, list(changes))  # before the long part
            with _still(engine, directory, pause=pause), open_layer(engine, directory) as stream:
                layer = held.enter_context(committing.compressed(store, stream.read))
            image = committing.commit(
                store,
                engine.snapshots,
                base,
                layer,
                config=config,
                created_by=" ".join(record.command),
                author=author,
                comment=message,
                reference=reference,
            )
    except ImageNotFound:
        raise ImageNotFound(f"commit {record.name}: its image {record.image} has been removed") from None
    return image, dict(stream.answer.get("notes") or {})


def settings(config: dict[str, Any], record: ContainerRecord, spec: Spec) -> dict[str, Any]:
    """An image's settings with what the container was told besides, as Docker merges them.

    Args:
        config: of the image; changed and returned.
        record: the container's.
        spec: its config.json.
    """
    options: dict[str, Any] = getattr(record, "options", None) or {}
    _command(config, options, record)
    environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    started_with = dict(entry.partition("=")[::2] for entry in spec["process"].get("env") or [])
    for entry in options.get("env") or ():
        name, equals, value = entry.partition("=")
        if not equals and name not in started_with:
            environment.pop(name, None)
            continue
        environment[name] = value if equals else started_with[name]
    if environment:
        config["Env"] = [f"{name}={value}" for name, value in environment.items()]
    for key, name in (("User", "user"), ("WorkingDir", "workdir"), ("StopSignal", "stop_signal")):
        if options.get(name):
            config[key] = options[name]
    if record.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **record.labels}
    check = getattr(record, "healthcheck", None)
    if check:
        config["Healthcheck"] = check
    volumes = [one["target"] for one in options.get("mounts") or () if one["kind"] == "volume" and not one["source"]]
    if volumes:
        config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in volumes}}
    return config


def _command(config: dict[str, Any], options: dict[str, Any], record: ContainerRecord) -> None:
    """Entry point and command line, so that the image runs what the container did."""
    if options.get("entrypoint") is not None:
        config["Entrypoint"] = [options["entrypoint"]] if options["entrypoint"] else []
        config["Cmd"] = list(options.get("args") or ())
    elif options.get("args"):
        config["Cmd"] = list(options["args"])
    elif not options:
        entrypoint = config.get("Entrypoint") or []
        if record.command[: len(entrypoint)] == entrypoint:
            config["Cmd"] = record.command[len(entrypoint) :]
    for key in ("Entrypoint", "Cmd"):
        if not config.get(key):
            config.pop(key, None)


def _still(engine: Engine, directory: ContainerDirectory, *, pause: bool | None) -> ExitStack:
    """What keeps the container still, begun; to be entered, so that it ends."""
    held = ExitStack()
    try:
        held.enter_context(StandingStill(engine, directory, pause=pause is not False))
    except NotSupported:
        if pause:
            raise
    return held
