"""An ordinary user who is denied user namespaces: told so, and everything that needs none works."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.support import nouserns
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import run
from tests.support.registries import Registry
from tests.support.users import OrdinaryUser

pytestmark = requires("root", "userns")

WAYS = {"sysctl": "max_user_namespaces", "seccomp": "seccomp filter"}


class Denied:
    """`hutch` as a user, without user namespaces; `.allowed` is the same with them."""

    def __init__(self, user: OrdinaryUser, way: str) -> None:
        self.user, self.way = user, way

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        words = nouserns.command(self.way, self.user.command([self.user.hutch, *argv]))
        return run(words, env=self.user.env, cwd=self.user.home, check=False)

    def allowed(self, *argv: str) -> str:
        return self.user.run([self.user.hutch, *argv]).stdout

    def refuses(self, *argv: str, status: int) -> None:
        done = self(*argv)
        assert done.returncode == status, (done.stdout, done.stderr)
        problem, hint = done.stderr.splitlines()[-2:]
        assert problem.startswith("hutch: ")
        assert "user namespace" in problem
        assert WAYS[self.way] in hint


@pytest.fixture(params=list(WAYS))
def denied(request: pytest.FixtureRequest, ordinary_user: OrdinaryUser) -> Denied:
    return Denied(ordinary_user, request.param)


def data(user: OrdinaryUser, part: str) -> list[str]:
    return sorted(os.listdir(f"{user.home}/.local/share/hutch/{part}"))


def test_run_pull_and_load_say_why_not_and_keep_nothing(
    denied: Denied, registry: Registry, busybox_image: Image
) -> None:
    name = busybox_image.push(registry, "nouserns/busybox:1")
    denied.refuses("run", "--rm", "@host", "true", status=125)
    denied.refuses("run", "--rm", name, "true", status=125)
    denied.refuses("pull", "-q", name, status=1)
    archive = f"{denied.user.home}/image.tar"
    busybox_image.copy_to(f"docker-archive:{archive}:nouserns:2")
    os.chmod(archive, 0o644)
    denied.refuses("load", "-i", archive, status=1)
    assert denied("images", "-q").stdout == ""
    assert data(denied.user, "layers") == data(denied.user, "containers") == data(denied.user, "snapshots") == []
    assert data(denied.user, "tmp") == []
    assert denied.allowed("run", "--rm", name, "echo", "now it may").strip() == "now it may"


def test_what_needs_none_works(denied: Denied, registry: Registry, busybox_image: Image) -> None:
    name = busybox_image.push(registry, "nouserns/here:1")
    denied.allowed("pull", "-q", name)
    assert denied("images", "--format", "{{.Tag}}").stdout == "1\n"
    assert denied("tag", name, "mine:3").returncode == 0
    assert json.loads(denied("image", "inspect", "mine:3").stdout)[0]["Os"] == "linux"
    assert denied("save", "-o", f"{denied.user.home}/saved.tar", "mine:3").returncode == 0
    assert denied("rmi", "mine:3").returncode == 0
    assert denied("ps", "-a").returncode == 0
    denied.refuses("run", "--rm", name, "true", status=125)
    assert data(denied.user, "containers") == data(denied.user, "snapshots") == []


def test_info_says_so(denied: Denied) -> None:
    found = json.loads(denied("info", "--format", "json").stdout)
    assert "not available" in found["Security"]["UserNamespace"]
    assert "user namespaces are not available" in found["Storage"]["Reason"]
    assert any("none can be run" in warning for warning in found["Warnings"])
    again = json.loads(denied.allowed("info", "--format", "json"))  # it was not remembered
    assert again["Security"]["UserNamespace"] == "subordinate ids"
    assert "userxattr" in again["Storage"]["Reason"]
