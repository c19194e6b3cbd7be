"""`import hutch` as an ordinary user, with subordinate ids and without."""

from __future__ import annotations

import os
import textwrap

import pytest

from tests.support.host import requires

pytestmark = requires("userns")

_PROGRAM = """
    import sys
    import hutch

    with hutch.Engine() as engine:
        (image,) = engine.images.load(sys.stdin.buffer.read())
        image.tag("busybox")
        assert engine.containers.run("busybox", "echo hello", remove=True) == b"hello\\n"
        with engine.containers.run("busybox", "sleep 1000", detach=True) as c:
            assert c.exec("id -u", timeout=10).stdout == b"0\\n"
            c.put("/tmp/a", b"data")
            assert c.get("/tmp/a") == b"data"
            if {owners}:
                c.exec("chown 1:2 /tmp/a")
            before = c.exec("stat -c '%n %u %g' /tmp/a").stdout
            snapshot = c.snapshot()
            assert c.exec(["rm", "/tmp/a", "/etc/group"]).exit_code == 0
            c.reset(snapshot)
            assert c.exec("stat -c '%n %u %g' /tmp/a").stdout == before
            with c.clone() as twin:
                assert twin.exec("cat /tmp/a /etc/group").stdout.startswith(b"data")
            assert engine.info()["Rootless"] is True
        assert engine.containers.list(all=True) == []
        engine.destroy()
"""


@pytest.mark.parametrize("kind", ["ordinary_user", "single_id_user"])
def test_a_program_of_an_ordinary_user(kind, request, busybox_image, tmp_path):
    user = request.getfixturevalue(kind)
    archive = tmp_path / "busybox.tar"
    busybox_image.copy_to(f"oci-archive:{archive}:busybox:latest")
    program = textwrap.dedent(_PROGRAM.format(owners=kind == "ordinary_user"))
    done = user.run([user.python, "-c", program], input=archive.read_bytes(), check=False)
    assert done.returncode == 0, done.stderr
    assert os.listdir(f"{user.home}/.local/share") == []
