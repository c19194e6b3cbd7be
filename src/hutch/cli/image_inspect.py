"""`hutch image inspect`: all that is known of images, in Docker's JSON."""

from __future__ import annotations

import json

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.images import unpacked_size
from hutch.cli.messages import complain
from hutch.cli.output import parse_template
from hutch.engine.engine import Engine
from hutch.errors import ImageNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.image.image import Image


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    found, missing = [], 0
    for text in arguments:
        try:
            found.append(describe(engine, engine.images.get(text)))
        except ImageNotFound as error:
            complain(error)
            missing += 1
    if given["format"] == "json":
        print(json.dumps(found, separators=(",", ":")))
    elif given["format"]:
        template = parse_template(given["format"])
        for document in found:
            print(template(document))
    else:
        print(json.dumps(found, indent=4))
    return 1 if missing else 0


def describe(engine: Engine, image: Image) -> dict[str, Any]:
    """An image in the shape of Docker's ``ImageInspect`` (Engine API, /images/{name}/json)."""
    config, run = image.config, image.config.config
    document: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": [name.familiar() for name in image.references],
        "RepoDigests": [name.familiar() for name in image.digests],
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created,
        "Author": config.author,
        "Config": {
            "User": run.user,
            "ExposedPorts": {key: {} for key in run.exposed_ports},
            "Env": list(run.env),
            "Cmd": list(run.cmd) or None,
            "Volumes": {key: {} for key in run.volumes} or None,
            "WorkingDir": run.working_dir,
            "Entrypoint": list(run.entrypoint) or None,
            "OnBuild": list(run.on_build) or None,
            "Labels": run.labels or None,
            "StopSignal": run.stop_signal,
            "Shell": list(run.shell) or None,
        },
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": unpacked_size(engine, image),
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Descriptor": {
            "mediaType": image.descriptor.media_type,
            "digest": image.descriptor.digest,
            "size": image.descriptor.size,
        },
    }
    if run.healthcheck is not None:
        check = run.healthcheck
        document["Config"]["Healthcheck"] = {
            "Test": list(check.test),
            "Interval": check.interval,
            "Timeout": check.timeout,
            "StartPeriod": check.start_period,
            "StartInterval": check.start_interval,
            "Retries": check.retries,
        }
    return document


COMMAND = Command(
    "image inspect",
    arguments="IMAGE [IMAGE...]",
    summary="Show all that is known of one or more images",
    flags=(Flag("format", "template", "json or a template such as '{{.Architecture}}'", short="f", default=""),),
    run=_run,
    example="hutch image inspect --format '{{json .Config.Env}}' debian:bookworm",
    least=1,
)
