"""`hutch pull`: bring images from a registry."""

from __future__ import annotations

import sys
from dataclasses import replace

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.progress import pull_progress
from hutch.engine.engine import Engine
from hutch.errors import InvalidArgument
from hutch.image import platform as platforms
from hutch.image.pull import pull, pull_all_tags
from hutch.image.reference import DEFAULT_TAG, Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    engine.prepare_directories()
    reference = Reference.parse(arguments[0], default_domain=engine.registries.default)
    platform = platforms.parse(given["platform"]) if given["platform"] else None
    if given["all_tags"] and (reference.tag or reference.digest):
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not given["all_tags"] and not reference.tag and not reference.digest:
        reference = replace(reference, tag=DEFAULT_TAG)
        if not given["quiet"]:
            print(f"Using default tag: {DEFAULT_TAG}")
    bring = pull_all_tags if given["all_tags"] else pull
    with pull_progress(sys.stdout, quiet=given["quiet"]) as progress:
        bring(
            reference,
            store=engine.images,
            layers=engine.snapshots,
            registries=engine.registries,
            platform=platform,
            progress=progress,
        )
    print(reference)
    return 0


COMMAND = Command(
    "pull",
    arguments="NAME[:TAG|@DIGEST]",
    summary="Download an image from a registry",
    flags=(
        Flag("all-tags", "", "download all tagged images in the repository", short="a"),
        Flag("platform", "string", "os/architecture[/variant] instead of this machine's", default=""),
        Flag("quiet", "", "print the image's name alone", short="q"),
    ),
    run=_run,
    example="hutch pull --platform linux/arm64 debian:bookworm",
    least=1,
    most=1,
)
