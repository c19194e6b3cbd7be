"""`hutch run` with a private root, a private cgroup and an image."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from hutch.engine.containers import ContainerRecord
from hutch.engine.engine import Engine
from tests.support.cli import Cli


class Runner:
    """Containers from one image.

    Args:
        cli: with a private root.
        cgroup: the parent of their cgroups.
        image: what they are made from.
    """

    def __init__(self, cli: Cli, cgroup: str, image: str) -> None:
        self.cli, self.cgroup, self.image = cli, cgroup, image

    def argv(self, *flags: str, image: str = "", verb: str = "run") -> list[str]:
        """The words after `hutch` up to the image."""
        return [verb, "--cgroup-parent", self.cgroup, *flags, image or self.image]

    def __call__(
        self, *command: str, flags: tuple[str, ...] = (), status: int | None = 0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, with --rm."""
        done = self.cli(*self.argv("--rm", *flags), *command, check=False, **more)
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    def detached(self, *command: str, flags: tuple[str, ...] = ()) -> str:
        """Start one in the background; its id."""
        return self.cli(*self.argv("-d", *flags), *command).stdout.strip()

    def script(self, text: str, *flags: str) -> str:
        """`detached` with a shell script."""
        return self.detached("sh", "-c", text, flags=flags)

    @property
    def engine(self) -> Engine:
        """The engine behind it, to look at records."""
        words = self.cli.words
        return Engine(words[words.index("--root") + 1], words[words.index("--state") + 1])

    def record(self, name: str) -> ContainerRecord:
        """A container's record."""
        return self.engine.containers.find(name).record

    @contextmanager
    def terminal(self, *arguments: str) -> Iterator[Terminal]:
        """A hutch command in a terminal of its own."""
        with Terminal([*self.cli.words, *arguments], self.cli.env) as terminal:
            yield terminal


class Terminal:
    """A program in a new terminal of 80 columns and 24 rows."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._ptmx, other = pty.openpty()
        self.process = subprocess.Popen(
            argv, env={**env, "TERM": "xterm"}, stdin=other, stdout=other, stderr=other, start_new_session=True
        )
        os.close(other)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ptmx)

    @property
    def fd(self) -> int:
        """The controlling end."""
        return self._ptmx

    def type(self, data: bytes) -> None:
        """Type something."""
        os.write(self._ptmx, data)

    def until(self, text: bytes, patience_s: float = 20) -> bytes:
        """Wait until `text` has appeared since the last call; everything up to there."""
        deadline = time.monotonic() + patience_s
        while text not in self.seen:
            if not select.select([self._ptmx], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not appear in {self.seen!r}")
            try:
                self.seen += os.read(self._ptmx, 65536)
            except OSError:
                raise AssertionError(f"it ended without {text!r}: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def wait(self, patience_s: float = 20) -> int:
        """Its exit status, when it has ended; output is read meanwhile, so that it can."""
        deadline = time.monotonic() + patience_s
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._ptmx], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self._ptmx, 65536)
                except OSError:
                    break
        return self.process.wait(max(0.1, deadline - time.monotonic()))
