"""`import hutch`: containers, images, volumes and events as programs use them."""

from __future__ import annotations

import datetime as dt
import io
import os
import signal
import tarfile
import threading
import time

import pytest

import hutch
from hutch.errors import (
    AlreadyExists,
    ContainerNotFound,
    ImageNotFound,
    InvalidArgument,
    InvalidState,
    NotFound,
    NotSupported,
    OutputTooLarge,
)
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root")


def test_run_returns_what_is_written(lib):
    both = ["sh", "-c", "echo out; sleep 0.05; echo err >&2"]
    assert lib.run("echo 'two words'", remove=True) == b"two words\n"
    assert lib.run(both, remove=True) == b"out\n"
    assert lib.run(both, remove=True, stdout=False, stderr=True) == b"err\n"
    assert lib.run(both, remove=True, stderr=True) == b"out\nerr\n"
    assert lib.run("cat", remove=True, stdin=b"x" * 300_000) == b"x" * 300_000
    assert lib.left() == []
    assert lib.run("true", name="stays") == b""
    assert lib.left() == ["stays"]
    assert lib.engine.containers.get("stays").status == "exited"


def test_run_raises_for_a_bad_end(lib):
    with pytest.raises(hutch.ContainerError, match="ended with status 3: wrong") as caught:
        lib.run(["sh", "-c", "echo wrong >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"wrong\n")
    with pytest.raises(hutch.HutchError, match="no-such-program") as failed:
        lib.run("no-such-program")
    assert failed.value.exit_code == 127
    with pytest.raises(hutch.HutchError):
        lib.start("no-such-program", name="again")
    with pytest.raises(hutch.HutchError):
        lib.start("no-such-program", name="again")  # the name is free
    with pytest.raises(ImageNotFound):
        lib.engine.containers.run("nothing:none", pull="never")
    with pytest.raises(hutch.ExecTimeout) as late:
        lib.run(["sh", "-c", "echo begun; sleep 100"], timeout=0.5)
    assert late.value.stdout == b"begun\n"
    with pytest.raises(OutputTooLarge):
        lib.run("yes", output_limit=100_000)
    assert lib.left() == []


def test_run_streams(lib):
    with lib.engine.containers.run(
        lib.image, ["sh", "-c", "echo a; sleep 0.1; echo b"], stream=True, cgroup_parent=lib.cgroup, remove=True
    ) as process:
        assert list(process) == [b"a\n", b"b\n"]
        assert process.exit_code == 0
    with lib.engine.containers.run(lib.image, "sleep 1000", stream=True, cgroup_parent=lib.cgroup) as process:
        assert process.pid > 0
        assert lib.engine.containers.list()
    wait_until(lambda: lib.left() == [], 5)


def test_options_are_docker_pys(lib, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("of the host")
    script = "id -u; hostname; pwd; echo $A $B; cat /data/file; ulimit -n; grep CapEff /proc/self/status"
    output = lib.run(
        ["-c", script],
        entrypoint="sh",
        user=1000,
        hostname="here",
        working_dir="/tmp",
        environment={"A": "1", "B": "two"},
        volumes={str(tmp_path): {"bind": "/data", "mode": "ro"}},
        ulimits=[{"Name": "nofile", "Soft": 100, "Hard": 200}],
        mem_limit="64m",
        cpus=0.5,
        pids_limit=77,
        labels={"a": "b"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        read_only=True,
        tmpfs={"/scratch": "size=1m"},
        shm_size="1m",
        network_mode="none",
        restart_policy={"Name": "no"},
        log_config={"type": "json-file", "config": {"max-size": "1m"}},
        stop_signal="SIGINT",
        init=True,
        remove=True,
        stderr=True,
    )
    lines = output.decode().splitlines()
    assert lines[:4] == ["1000", "here", "/tmp", "1 two"]
    assert lines[4] == "of the host100"
    assert lines[5].split() == ["CapEff:", "0" * 16]


def test_what_is_no_option_is_named(lib):
    with pytest.raises(TypeError, match="unexpected keyword argument 'memroy'"):
        lib.start(memroy="1g")
    with pytest.raises(TypeError, match="environment: "):
        lib.start(environment=7)
    with pytest.raises(NotSupported, match="ports: not supported"):
        lib.start(ports={"80/tcp": 8080})
    with pytest.raises(InvalidArgument, match="mem_limit: invalid size"):
        lib.start(mem_limit="much")
    with pytest.raises(InvalidArgument, match="name: invalid container name"):
        lib.start(name="/no")
    assert lib.left() == []


def test_a_containers_life(lib):
    c = lib.start(name="one", labels={"app": "web"})
    assert (c.name, c.status, c.labels["app"], c.image) == ("one", "running", "web", lib.image)
    assert c.attrs["State"]["Running"] is True
    assert lib.engine.containers.get(c.short_id) == c
    with pytest.raises(AlreadyExists):
        lib.start(name="one")
    c.pause()
    assert c.status == "paused"
    c.unpause()
    before = c.attrs["State"]["Pid"]
    c.restart(timeout=0)
    assert c.attrs["State"]["Pid"] != before
    c.rename("two")
    assert c.name == "two"
    with pytest.raises(InvalidState):
        c.remove()
    with pytest.raises(TimeoutError):
        c.wait(timeout=0.1)
    c.kill("SIGKILL")
    assert c.wait()["StatusCode"] == 137
    with pytest.raises(InvalidState):
        c.exec("true")
    c.start()
    c.start()
    c.stop(timeout=0)
    assert c.status == "exited"
    c.remove()
    with pytest.raises(ContainerNotFound):
        c.reload()


def test_limits_are_changed(lib):
    with lib.start(memory="64m") as c:
        c.update(mem_limit="128m", memswap_limit="256m", pids_limit=50, restart_policy="always")
        host = c.attrs["HostConfig"]
        assert (host["Memory"], host["PidsLimit"], host["RestartPolicy"]["Name"]) == (128 << 20, 50, "always")
        assert c.stats()["limit"] == 128 << 20
        with pytest.raises(TypeError, match="unexpected keyword argument 'hostname'"):
            c.update(hostname="other")


def test_containers_are_listed_and_pruned(lib):
    running = lib.start(name="running", labels={"k": "1"})
    created = lib.engine.containers.create(lib.image, name="created", cgroup_parent=lib.cgroup, labels=["k"])
    assert lib.engine.containers.list() == [running]
    assert set(lib.engine.containers.list(all=True)) == {running, created}
    assert lib.engine.containers.list(filters={"status": "created"}) == [created]
    assert lib.engine.containers.list(True, filters={"label": ["k=1"]}) == [running]
    assert len(lib.engine.containers.list(all=True, limit=1)) == 1
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        lib.engine.containers.list(filters={"colour": "red"})
    assert lib.engine.containers.prune(filters={"label": "k=2"})["ContainersDeleted"] == []
    pruned = lib.engine.containers.prune()
    assert pruned["ContainersDeleted"] == [created.id]
    assert lib.left() == ["running"]


def test_exec(lib):
    c = lib.start(environment={"FROM": "container"})
    result = c.exec(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert c.exec("echo 'a b'").output == b"a b\n"
    assert c.exec(["sh", "-c", "echo $FROM $X; pwd; id -u"], environment={"X": "1"}, cwd="/tmp", user=12).stdout == (
        b"container 1\n/tmp\n12\n"
    )
    data = os.urandom(1 << 20)
    assert c.exec("cat", stdin=data).stdout == data
    assert c.exec("wc -c", stdin=b"").stdout.strip() == b"0"
    assert c.exec("true", stdin=data).exit_code == 0  # it reads nothing of it
    assert c.exec("tty", tty=True).stdout.startswith(b"/dev/pts/")
    assert c.exec(["sh", "-c", "sleep 0.2; touch /tmp/made"], detach=True).exit_code == 0
    wait_until(lambda: c.exec("ls /tmp/made").exit_code == 0, 5)
    with pytest.raises(hutch.HutchError, match="no-such") as failed:
        c.exec("no-such")
    assert failed.value.exit_code == 127
    with pytest.raises(OutputTooLarge):
        c.exec("yes", output_limit=1000)
    with pytest.raises(TypeError):
        c.exec("")
    assert [row[-1] for row in c.top()["Processes"]] == ["sleep 1000"]


def test_an_exec_that_takes_too_long_is_killed_with_what_it_started(lib):
    c = lib.start()
    before = time.monotonic()
    with pytest.raises(hutch.ExecTimeout) as late:
        c.exec(["sh", "-c", "echo begun; sleep 500 & sleep 600; true"], timeout=0.3)
    assert time.monotonic() - before < 3
    assert late.value.stdout == b"begun\n"
    wait_until(lambda: len(c.top()["Processes"]) == 1, 5)
    with pytest.raises(hutch.ExecTimeout):
        c.exec("sleep 700", stdin=b"x" * (4 << 20), timeout=0.3)  # nobody reads that
    wait_until(lambda: len(c.top()["Processes"]) == 1, 5)


def test_an_exec_is_talked_to(lib):
    c = lib.start()
    with c.exec("cat", stream=True, stdin=True) as process:
        chunks = process.chunks()
        for word in (b"one\n", b"two\n"):
            process.write(word)
            assert next(chunks) == (word, b"")
        process.close_stdin()
        assert list(chunks) == []
        assert process.exit_code == 0
    with c.exec("sleep 1000", stream=True) as process:
        process.signal(signal.SIGTERM)
        assert process.wait().exit_code == 143
    with c.exec("sleep 1001", stream=True):
        wait_until(lambda: len(c.top()["Processes"]) == 2, 5)
    wait_until(lambda: len(c.top()["Processes"]) == 1, 5)  # left: killed


def test_attach(lib):
    c = lib.start("cat", stdin_open=True)
    with c.attach(stdin=True) as process:
        process.write(b"hello\n")
        assert next(iter(process)) == b"hello\n"
    assert c.status == "running"
    with c.attach() as process:
        c.kill()
        assert process.wait().exit_code == 137
    with pytest.raises(InvalidState):
        c.attach()


def test_logs(lib):
    c = lib.start(["sh", "-c", "for i in 1 2 3; do echo out $i; done; echo err >&2; sleep 0.6; echo late"])
    wait_until(lambda: b"err" in c.logs(), 5)
    moment = time.time()
    assert c.logs(stderr=False) == b"out 1\nout 2\nout 3\n"
    assert c.logs(stdout=False) == b"err\n"
    assert c.logs(stderr=False, tail=3).count(b"\n") in (2, 3)
    assert c.logs(timestamps=True, stdout=False).startswith(time.strftime("%Y-%m-", time.gmtime()).encode())
    lines = list(c.logs(follow=True))
    assert lines[-1] == b"late\n" and len(lines) == 5
    assert c.logs(since=moment) == b"late\n"
    assert c.logs(until=dt.datetime.fromtimestamp(moment, dt.UTC), stderr=False) == b"out 1\nout 2\nout 3\n"
    assert c.logs(tail=0) == b""


def test_files(lib, tmp_path):
    c = lib.start()
    data = os.urandom(3 << 20)
    c.put("/tmp/data", data, mode=0o640)
    assert c.get("/tmp/data") == data
    assert c.exec("stat -c '%a %u %s' /tmp/data").stdout == f"640 0 {len(data)}\n".encode()
    c.exec("ln -s data /tmp/link")
    assert c.get("/tmp/link") == data
    c.exec(["sh", "-c", "dd if=/dev/zero of=/tmp/holes bs=1 count=1 seek=5000000 && echo x >> /tmp/holes"])
    holes = c.get("/tmp/holes")
    assert (len(holes), holes[-2:]) == (5_000_003, b"x\n")
    for path, error in (("/tmp/none", NotFound), ("/tmp", InvalidArgument)):
        with pytest.raises(error):
            c.get(path)
    with pytest.raises(OutputTooLarge):
        c.get("/tmp/data", limit=1000)
    with pytest.raises(NotFound):
        c.put("/none/file", b"")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "leaf").write_bytes(b"leaf")
    c.put("/tmp", tmp_path / "tree")
    assert c.get("/tmp/tree/leaf") == b"leaf"
    assert c.get("/tmp/tree", tmp_path / "back") == b""
    assert (tmp_path / "back" / "leaf").read_bytes() == b"leaf"
    chunks, described = c.get_archive("/tmp/tree")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert sorted(archive.getnames()) == ["tree", "tree/leaf"]
    assert described["name"] == "tree"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path / "tree" / "leaf", "packed")
    c.put_archive("/tmp", packed.getvalue())
    assert c.get("/tmp/packed") == b"leaf"
    c.stop(timeout=0)
    c.put("/tmp/stopped", b"also then")
    assert c.get("/tmp/stopped") == b"also then"
    c.get_archive("/tmp")[0]  # not read: nothing is left of it


def test_changes_become_images(lib, tmp_path):
    c = lib.start()
    c.put("/made", b"by hand")
    assert {"Path": "/made", "Kind": 1} in c.diff()
    image = c.commit("changed", "1", changes=['CMD ["cat", "/made"]'])
    assert image.tags == ["changed:1"]
    assert lib.engine.containers.run("changed:1", cgroup_parent=lib.cgroup, remove=True) == b"by hand"
    rootfs = b"".join(c.export())
    assert lib.engine.images.import_(rootfs, "flat", changes=["CMD cat /made"]).tags == ["flat:latest"]
    saved = b"".join(lib.engine.images.save(["changed:1"]))
    lib.engine.images.get("changed:1").save(tmp_path / "saved.tar")
    assert (tmp_path / "saved.tar").stat().st_size == len(saved)
    with pytest.raises(ImageNotFound):
        lib.engine.images.save("nothing")
    removed = lib.engine.images.remove("changed:1")
    assert removed[0] == {"Untagged": "changed:1"} or "changed:1" in removed[0]["Untagged"]
    with pytest.raises(ImageNotFound):
        lib.engine.images.get("changed:1")
    assert [one.tags for one in lib.engine.images.load(saved)] == [["changed:1"]]
    assert [one.tags for one in lib.engine.images.load(iter([saved[:1000], saved[1000:]]))] == [["changed:1"]]
    lib.engine.images.tag("changed:1", "other", "2")
    assert sorted(lib.engine.images.get("other:2").tags) == ["changed:1", "other:2"]
    assert [one.tags for one in lib.engine.images.list("flat")] == [["flat:latest"]]
    pruned = lib.engine.images.prune(filters={"dangling": False})
    assert pruned["SpaceReclaimed"] > 0
    assert [one.tags for one in lib.engine.images.list()] == [["busybox:latest"]]


def test_images_are_pulled_with_progress(lib, registry, busybox_image):
    name = busybox_image.push(registry, "library/pulled:1")
    told = []
    lib.engine.images.remove(lib.image, force=True)
    image = lib.engine.images.pull(name, progress=told.append)
    assert image.tags == [name]
    assert {"status", "id", "current", "total"} == set(told[0])
    assert lib.engine.containers.run(name, "echo here", cgroup_parent=lib.cgroup, remove=True) == b"here\n"


def test_volumes(lib):
    volume = lib.engine.volumes.create("data", labels={"a": "b"})
    lib.run("touch /v/file", volumes=["data:/v"], remove=True)
    assert os.listdir(volume.path) == ["file"]
    assert lib.engine.volumes.list(filters={"label": "a"}) == [volume]
    assert lib.engine.volumes.get("data").attrs["Labels"] == {"a": "b"}
    c = lib.start(volumes={"data": {"bind": "/v"}})
    with pytest.raises(hutch.HutchError, match="in use"):
        volume.remove()
    c.remove(force=True)
    assert lib.engine.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    volume.remove()
    volume.remove(force=True)
    with pytest.raises(NotFound):
        lib.engine.volumes.get("data")


def test_events(lib):
    seen = []
    began = time.time()
    follower = threading.Thread(
        target=lambda: seen.extend(lib.engine.events(until=time.time() + 2.5, since=began, follow=True)), daemon=True
    )
    follower.start()
    lib.run("true", name="brief", remove=True)
    follower.join()
    actions = [event["Action"] for event in seen if event["Actor"]["Attributes"].get("name") == "brief"]
    assert actions == ["create", "start", "die", "destroy"]
    (died,) = lib.engine.events(since=began, until=time.time(), filters={"event": "die"})
    assert died["Actor"]["Attributes"]["exitCode"] == "0" and died["Type"] == "container"
    with pytest.raises(InvalidArgument):
        lib.engine.events(filters={"colour": "red"})


def test_the_face_is_lazy_and_whole():
    assert hutch.Engine.__name__ == "Engine"
    for name in dir(hutch):
        assert getattr(hutch, name) is not None or name.startswith("__")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = hutch.Nothing  # type: ignore[attr-defined]
