"""`run -it`, `attach` and `exec -it` as people use them: in panes of tmux, with job control and changing sizes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.host import requires
from tests.support.programs import run, wait_until
from tests.support.runner import Runner

pytestmark = requires("root", "program:tmux")

PATIENCE_S = 30


class Tmux:
    """A tmux server of its own with one window, and a shell in each pane."""

    def __init__(self, directory: str) -> None:
        self._argv = ["tmux", "-S", f"{directory}/socket", "-f", "/dev/null"]
        shell = ["env", "-i", "TERM=screen", f"PATH={os.environ['PATH']}", "PS1=host> ", "sh"]
        self._shell = shlex.join(shell)
        self("new-session", "-d", "-x", "100", "-y", "40", self._shell)

    def __call__(self, *words: str) -> str:
        return run([*self._argv, *words]).stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self("kill-server")

    def split(self) -> None:
        """Open the second pane."""
        self("split-window", self._shell)

    def type(self, pane: int, *keys: str) -> None:
        """Press keys by tmux's names for them, or type a text."""
        self("send-keys", "-t", f":.{pane}", *keys)

    def until(self, pane: int, line: str) -> None:
        """Wait for a whole line on the pane's screen."""
        wait_until(lambda: line in self.lines(pane), PATIENCE_S, explain=lambda: f"{line!r} in {self.lines(pane)}")

    def lines(self, pane: int) -> list[str]:
        """The pane's screen."""
        return [line.strip() for line in self("capture-pane", "-p", "-t", f":.{pane}").splitlines()]


@pytest.fixture
def tmux(leaks_nothing: None, tmp_path) -> Iterator[Tmux]:
    with Tmux(str(tmp_path)) as found:
        yield found


def test_a_terminal_as_people_use_it(box: Runner, tmux: Tmux, tmp_path) -> None:
    with open(f"{tmp_path}/h", "w", encoding="ascii") as file:
        file.write(f'#!/bin/sh\nexec {shlex.join(box.cli.words)} "$@"\n')
    os.chmod(f"{tmp_path}/h", 0o755)
    hutch = f"{tmp_path}/h"
    started = shlex.join([hutch, *box.argv("-it", "--name", "term", "-e", "PS1=in> "), "sh"])
    tmux.type(0, started, "Enter")
    tmux.until(0, "in>")
    # Job control: it is the container's shell that gets Ctrl-Z and Ctrl-C.
    tmux.type(0, "sleep 1000", "Enter")
    wait_until(lambda: "sleep 1000" in box.cli("top", "term").stdout, PATIENCE_S)
    tmux.type(0, "C-z")
    tmux.type(0, "fg", "Enter")
    tmux.until(0, "sleep 1000")  # fg says what it goes on with
    tmux.type(0, "C-c")
    tmux.type(0, "echo ended $?", "Enter")
    tmux.until(0, "ended 130")
    # The window changes its size, and so does the container's terminal.
    tmux("resize-window", "-x", "77", "-y", "33")
    wait_until(lambda: _says(tmux, "stty size", "33 77"), PATIENCE_S)
    # Detached by keys, then two at once.
    tmux.type(0, "C-p", "C-q")
    tmux.type(0, "echo left $?", "Enter")
    tmux.until(0, "left 0")
    tmux.split()
    for pane in (0, 1):
        tmux.type(pane, "clear", "Enter")
        tmux.type(pane, f"{hutch} attach term; echo gave $?", "Enter")
        wait_until(lambda pane=pane: "in>" in tmux.lines(pane) or tmux.type(pane, "Enter") is not None, PATIENCE_S)
    for pane, text in ((0, "one"), (1, "two")):
        tmux.type(pane, f"echo from-{text}", "Enter")
        tmux.until(0, f"from-{text}")
        tmux.until(1, f"from-{text}")
    tmux.type(1, "C-p", "C-q")
    tmux.until(1, "in> gave 0")
    tmux.type(1, f"{hutch} exec -it term sh -c 'tty; exit 3'; echo gave $?", "Enter")
    tmux.until(1, "/dev/pts/1")
    tmux.until(1, "gave 3")
    tmux.type(0, "exit 5", "Enter")
    tmux.until(0, "gave 5")
    box.cli("rm", "term")


def _says(tmux: Tmux, command: str, answer: str) -> bool:
    tmux.type(0, command, "Enter")
    return answer in tmux.lines(0)
