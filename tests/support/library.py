"""`import hutch` with a private root, a private cgroup and an image."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hutch
from hutch.engine.forkserver import client
from tests.conftest import Roots
from tests.support.images import Image

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Library:
    """A program that uses containers.

    Args:
        engine: with a private root.
        cgroup: the parent of the containers' cgroups.

    Attributes:
        image: the name of an image of busybox.
    """

    image = "busybox:latest"

    def __init__(self, engine: hutch.Engine, cgroup: str) -> None:
        self.engine, self.cgroup = engine, cgroup

    def run(self, command: Any = None, **options: Any) -> bytes:
        """Run a container to its end."""
        output: bytes = self.engine.containers.run(self.image, command, cgroup_parent=self.cgroup, **options)
        return output

    def start(self, command: Any = "sleep 1000", **options: Any) -> hutch.Container:
        """Start a container."""
        return self.engine.containers.run(self.image, command, detach=True, cgroup_parent=self.cgroup, **options)

    def program(self, text: str, **more: Any) -> subprocess.Popen[str]:
        """Another program that has `engine`, `IMAGE` and `CGROUP`."""
        head = f"""
            import os, sys, threading, time
            import hutch
            engine = hutch.Engine({self.engine.root!r}, {self.engine.state!r})
            IMAGE, CGROUP = {self.image!r}, {self.cgroup!r}
        """
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def left(self) -> list[str]:
        """The names of all containers there are."""
        return [container.name for container in self.engine.containers.list(all=True)]


@contextmanager
def library(roots: Roots, cgroup: str, image: Image) -> Iterator[Library]:
    """A library over these roots, with the image loaded; the fork server ends with it."""
    with hutch.Engine(roots.data, roots.state) as engine:
        (loaded,) = engine.images.load(image.path)
        loaded.tag("busybox", "latest")
        try:
            yield Library(engine, cgroup)
        finally:
            for container in engine.containers.list(all=True):
                container.remove(force=True)
            client.end(roots.state)
