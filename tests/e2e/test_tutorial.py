"""Every command of docs/user/tutorial.md, in order, with the output that the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import images
from tests.support.host import requires

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user" / "tutorial.md"
PATIENCE_S = 30

pytestmark = [
    requires("root", "program:mmdebstrap", "program:buildah"),
    pytest.mark.timeout(600),  # the first time, when the image is made
]


def steps() -> list[tuple[str, str, str]]:
    """(what a block's first line adds, command, output shown) for each command."""
    found = []
    text = PAGE.read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```console *(.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, output = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
            found.append((kind, command.strip(), output))
    return found


def matches(shown: str, said: str) -> bool:
    """Whether it is what the page shows, but for `…` and the width of columns."""
    wanted = re.escape(" ".join(shown.split())).replace("…", ".*")
    return re.fullmatch(wanted, " ".join(said.split()), re.DOTALL) is not None


def test_the_tutorial(own_hutch, cgroup_parent, tmp_path):
    made = images.services()["nginx"]
    own_hutch("load", "--quiet", "--input", made.path)
    own_hutch("tag", made.manifest()["config"]["digest"], "shop:1")
    places = (f"{tmp_path}/bin", f"{tmp_path}/work")
    for path in places:
        os.mkdir(path)
    with open(f"{places[0]}/hutch", "w", encoding="ascii") as file:
        # `run` in a cgroup of the test's; all else is as it is typed.
        file.write(
            f'#!/bin/sh\n[ "$1" = run ] && shift && set -- run --cgroup-parent {cgroup_parent} "$@"\n'
            f'exec {shlex.join(own_hutch.words)} "$@"\n'
        )
    os.chmod(f"{places[0]}/hutch", 0o755)
    env = {**own_hutch.env, "PATH": f"{places[0]}:{os.environ['PATH']}"}

    def say(command: str) -> str:
        argv = ["bash", "-o", "pipefail", "-c", command]
        done = subprocess.run(argv, env=env, cwd=places[1], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}ended with {done.returncode}"

    done = 0
    for kind, command, shown in steps():
        if kind == "no-test":
            continue
        said = say(command)
        deadline = time.monotonic() + PATIENCE_S
        while kind == "until-healthy" and not matches(shown, said) and time.monotonic() < deadline:
            time.sleep(0.2)
            said = say(command)
        assert matches(shown, said), f"{command}\nshall say:\n{shown}\nand says:\n{said}"
        done += 1
    assert done > 25
