"""Completion in the real bash, zsh and fish, over a store with something in it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import shutil
import time

import pytest

from tests.support.cli import Cli, command
from tests.support.evil import EvilImage, Layer
from tests.support.host import requires
from tests.support.programs import run

pytestmark = requires("root")

# What is typed before the tab, and what the line is after it.
LINES = [
    ("hutch compl", "hutch completion"),
    ("hutch completion z", "hutch completion zsh"),
    ("hutch volume pr", "hutch volume prune"),
    ("hutch run --interac", "hutch run --interactive"),
    ("hutch run --pull mis", "hutch run --pull missing"),
    ("hutch run --pull=mis", "hutch run --pull=missing"),
    ("hutch run --network container:ab", "hutch run --network container:able"),
    ("hutch rmi debian:bo", "hutch rmi debian:bookworm"),
    ("hutch run -it registry.ex", "hutch run -it registry.example:5000/team/app:v1"),
    ("hutch run registry.example:50", "hutch run registry.example:5000/team/app:v1"),
    ("hutch rm able ba", "hutch rm able baker"),
    ("hutch volume inspect d", "hutch volume inspect data"),
    ("hutch ps --filter name=ba", "hutch ps --filter name=baker"),
    ("hutch ps --filter stat", "hutch ps --filter status="),
    ("hutch load -i fil", "hutch load -i file.tar"),
]


@pytest.fixture
def environment(tmp_root, tmp_path):
    """Variables for a shell in which `hutch` works on a private root, in a directory with one file."""
    cli = Cli(tmp_root.options, {"HUTCH_CONFIG": "/nonexistent"})
    image = EvilImage([Layer().directory("tmp").file("x", b"", mode=0o755)], config={"Cmd": ["/x"]})
    loaded = cli("load", "-i", image.write_layout(f"{tmp_root.base}/image", "image")).stdout.split()[-1]
    for name in ("debian:bookworm", "registry.example:5000/team/app:v1"):
        cli("tag", loaded, name)
    for name in ("able", "baker"):
        cli("create", "--name", name, "debian:bookworm")
    cli("volume", "create", "data")
    cli("volume", "create")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/hutch"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command(*tmp_root.options))} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file.tar").touch()
    yield {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "PWD": str(tmp_path / "here"),
        "HUTCH_CONFIG": "/nonexistent",
    }
    cli("rm", "able", "baker")


class Typist:
    """A shell on a terminal, and somebody who types."""

    def __init__(self, argv, env):
        pid, self._fd = pty.fork()
        if not pid:
            os.chdir(env["PWD"])
            os.execvpe(argv[0], argv, env)
        self._pid, self.seen = pid, ""

    def type(self, text):
        os.write(self._fd, text.encode())

    def wait_for(self, pattern, seconds=20.0):
        """Read until the pattern was seen; None if it never is."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None and time.monotonic() < end:
            if select.select([self._fd], [], [], 0.2)[0]:
                self.seen += os.read(self._fd, 65536).decode(errors="replace").replace("\r", "")
        return found

    def complete(self, typed, expected):
        """What a tab makes of a line."""
        self.seen = ""
        self.type(typed + "\t")
        self.wait_for(re.escape(expected[len(typed) :]), 5.0)
        time.sleep(0.05)
        self.type("\x01echo @\n")
        found = self.wait_for(r"\n@(hutch.*)\n")
        return found and found[1]

    def end(self):
        self.type("\x15exit\n")
        with contextlib.suppress(OSError):  # EIO: the shell is gone
            while os.read(self._fd, 65536):
                pass
        os.close(self._fd)
        os.waitpid(self._pid, 0)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(hutch completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source <(hutch completion zsh)"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_tab_completes_what_was_typed(shell, environment):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    argv, setup = SHELLS[shell]
    typist = Typist(argv, environment)
    try:
        typist.type(f"PS1='$ '; PROMPT='$ '; {setup}; echo rea''dy\n")
        assert typist.wait_for("\nready\n")
        got = [typist.complete(typed, expected) for typed, expected in LINES]
    finally:
        typist.end()
    assert [line and line.strip() for line in got] == [expected for _, expected in LINES]


def test_fish_completes_what_was_typed(environment):
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    script = "hutch completion fish | source\n"
    script += "".join(f"complete -C{shlex.quote(typed)}; echo ---\n" for typed, _ in LINES)
    answers = run(["fish", "--no-config"], input=script, env=environment, cwd=environment["PWD"]).stdout.split("---\n")
    for (typed, expected), answer in zip(LINES, answers, strict=False):
        word = expected.rpartition(" ")[2]
        assert [line.partition("\t")[0] for line in answer.splitlines()] == [word], typed


def test_the_answer_is_in_cobras_form(environment):
    def ask(*words):
        return run(["hutch", "__complete", *words], env=environment).stdout.splitlines()

    assert ask("start", "") == ["baker\tdebian:bookworm", "able\tdebian:bookworm", ":4"]
    assert ask("stop", "") == [":4"]  # neither runs
    assert ask("cp", "ab") == ["able:\tdebian:bookworm", ":2"]
    assert ask("cp", "x") == [":0"]
    assert ask("run", "--rm", "-v", "da") == ["data:\tvolume", ":2"]
    assert ask("run", "debian:bookworm", "--") == [":0"]
    assert ask("run", "-itw", "") == [":16"]
    assert ask("--root", "/nonexistent", "rmi", "") == [":4"]
    assert ask("frobnicate", "") == [":4"]
    assert ask("inspect", "ba") == ["baker\tdebian:bookworm", ":4"]
    assert ask("inspect", "--type", "im") == ["image", ":4"]
    assert ask("kill", "-s", "SIGTER") == ["SIGTERM", ":4"]
    assert "--detach-keys" in "".join(ask("run", "--det"))
    assert not [line for line in ask("run", "--") if "not supported" in line]
    first = ask("")
    assert "run\tCreate and run a new container from an image" in first and "volume\tManage volumes" in first


def test_unknown_shells_are_refused(environment):
    done = run(["hutch", "completion", "tcsh"], env=environment, check=False)
    assert done.returncode == 1 and "unknown shell: tcsh" in done.stderr
