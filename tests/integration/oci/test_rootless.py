"""hutch-oci as an ordinary user: the bundle that `spec --rootless` writes, from create to delete."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import oci
from tests.support.host import requires
from tests.support.programs import wait_until
from tests.support.users import OrdinaryUser

pytestmark = [pytest.mark.host, requires("root", "program:busybox", "program:newuidmap")]


def prepare(user: OrdinaryUser, *args: str) -> list[str]:
    """A bundle in the user's home; returns the beginning of every command line."""
    command = [f"{user.installed.prefix}/bin/hutch-oci"]
    oci.busybox_rootfs(f"{user.home}/rootfs")
    for path in (f"{user.home}/rootfs", *map(str, Path(f"{user.home}/rootfs").rglob("*"))):
        os.lchown(path, user.uid, user.uid)
    user.run([*command, "spec", "--rootless"])
    path = Path(user.home, "config.json")
    spec = json.loads(path.read_text())
    spec["process"].update(terminal=False, args=list(args))
    path.write_text(json.dumps(spec))
    return command


def test_a_life_without_privileges(ordinary_user: OrdinaryUser) -> None:
    command = prepare(ordinary_user, "sleep", "1000")
    create = ordinary_user.command([*command, "create", "box"])
    null = subprocess.DEVNULL
    with open(f"{ordinary_user.home}/errors", "w+b") as errors:
        done = subprocess.run(
            create, check=False, env=ordinary_user.env, cwd=ordinary_user.home, stdin=null, stdout=null, stderr=errors
        )
    try:
        assert done.returncode == 0, Path(ordinary_user.home, "errors").read_text()
        state = json.loads(ordinary_user.run([*command, "state", "box"]).stdout)
        assert state["status"] == "created"
        ordinary_user.run([*command, "start", "box"])
        assert os.stat(f"/proc/{state['pid']}").st_uid == ordinary_user.uid
        done = ordinary_user.run([*command, "exec", "box", "sh", "-c", "id -u; cat /proc/self/uid_map; echo $PPID"])
        first, second, third = done.stdout.splitlines()
        assert (first, second.split(), third) == ("0", ["0", str(ordinary_user.uid), "1"], "0")
        assert ordinary_user.run([*command, "exec", "box", "sh", "-c", "exit 5"], check=False).returncode == 5
        assert ordinary_user.run([*command, "list", "-q"]).stdout == "box\n"
        assert ordinary_user.run([*command, "kill", "box", "KILL"]).stderr == ""
        wait_until(lambda: json.loads(ordinary_user.run([*command, "state", "box"]).stdout)["status"] == "stopped", 10)
    finally:
        ordinary_user.run([*command, "delete", "--force", "box"])
    assert ordinary_user.run([*command, "list", "-q"]).stdout == ""
    assert os.listdir(f"{ordinary_user.runtime_dir}/hutch-oci") == []


def test_run_without_privileges(ordinary_user: OrdinaryUser) -> None:
    command = prepare(ordinary_user, "sh", "-c", "id -u; hostname; exit 4")
    done = ordinary_user.run([*command, "run", "box"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (4, "0\nhutch\n", "")
