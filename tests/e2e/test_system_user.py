"""Looking, counting and repairing as an ordinary user, whose containers may have no cgroup."""

from __future__ import annotations

import json

import pytest

from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import wait_until
from tests.support.registries import Registry

pytestmark = requires("userns")


@pytest.mark.parametrize("kind", ["ordinary_user", "single_id_user"])
def test_an_ordinary_users_containers(kind, request, registry: Registry, busybox_image: Image):
    user = request.getfixturevalue(kind)

    def hutch(*argv: str, status: int = 0) -> str:
        done = user.run([user.hutch, *argv], check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    name = busybox_image.push(registry, "system/busybox:latest")
    hutch("run", "-d", "--name", "box", "-v", "data:/data", name, "sh", "-c", "sleep 77; true")
    found = json.loads(hutch("inspect", "-s", "box"))[0]
    assert (found["State"]["Status"], found["Path"]) == ("running", "sh")
    assert found["Usage"]["WallSeconds"] > 0
    wait_until(lambda: "sh -c sleep 77" in hutch("top", "box"), 10)
    assert hutch("stats", "--no-stream", "--format", "{{.Name}}") == "box\n"
    hutch("exec", "box", "true")
    hutch("update", "--restart", "unless-stopped", "box")
    assert hutch("system", "check") == "no problems found\n"
    hutch("kill", "box")
    hutch("wait", "box")
    assert [line.split()[0] for line in hutch("usage", "--format", "{{.What}}").splitlines()] == ["exec", "run"]
    assert "default.target" in hutch("system", "units")
    assert "Containers" in hutch("system", "df")
    assert "Deleted Containers:" in hutch("container", "prune", "-f")
    assert hutch("system", "check", "--repair") == "no problems found\n"
    hutch("volume", "rm", "data")
