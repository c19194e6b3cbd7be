"""The test support itself: a leak check that cannot fail would let everything pass."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from tests.support import files, leaks, requires
from tests.support.evil import OCI_MANIFEST, EvilImage, Layer
from tests.support.host import cgroup_mounts
from tests.support.programs import run, wait_until


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leaks, "_PATIENCE_S", 0.1)


@pytest.mark.host
@requires("root", "program:mount")
def test_a_leaked_mount_is_named(quick, tmp_path):
    before = leaks.inventory()
    subprocess.run(["mount", "-t", "tmpfs", "leak", tmp_path], check=True)
    try:
        assert str(tmp_path) in leaks.difference(before)
        with pytest.raises(OSError, match="still mounted"):
            files.remove_tree(str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert leaks.difference(before) == ""


@pytest.mark.host
def test_a_leaked_process_is_named_also_when_its_parent_is_gone(quick):
    before = leaks.inventory()
    out = subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True)
    pid = int(out.stdout)
    try:
        assert f"{pid} (" in leaks.difference(before)
    finally:
        os.kill(pid, 9)
    wait_until(lambda: leaks.difference(before) == "", 10)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.host
@requires("root")
def test_a_leaked_cgroup_is_named(quick, cgroup_parent):
    before = leaks.inventory()
    top = cgroup_mounts()[0][0]
    path = f"{top}{cgroup_parent}/leak"
    os.mkdir(path)
    try:
        assert path in leaks.difference(before)
    finally:
        os.rmdir(path)


@pytest.mark.host
@requires("root")
def test_a_process_can_enter_the_cgroup_parent_in_each_hierarchy(cgroup_parent):
    for top, _, _ in cgroup_mounts():
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        with open(f"{top}{cgroup_parent}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(child.pid))
        child.communicate()


@pytest.mark.host
def test_tmp_root_is_private_and_goes(tmp_root):
    assert os.stat(tmp_root.data).st_mode & 0o777 == 0o700
    os.makedirs(f"{tmp_root.data}/a/b/c")
    os.chmod(f"{tmp_root.data}/a/b", 0)


def test_an_unknown_need_is_an_error():
    with pytest.raises(ValueError, match="unknown need"):
        requires("rooot")


def test_the_registry_takes_what_skopeo_pushes(registry, busybox_image):
    busybox_image.push(registry, "support/busybox:1")
    status, headers, body = registry.request("GET", "/v2/support/busybox/manifests/1", None, {"Accept": OCI_MANIFEST})
    assert status == 200
    assert headers["Content-Type"] == OCI_MANIFEST
    assert json.loads(body)["config"] == busybox_image.manifest()["config"]


def test_the_schema2_image_is_dockers(registry, schema2_image):
    schema2_image.push(registry, "support/schema2:1")
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    _, headers, _ = registry.request("GET", "/v2/support/schema2/manifests/1", None, {"Accept": docker})
    assert headers["Content-Type"] == docker


def test_the_password_registry_refuses_strangers(registry_basic, busybox_image):
    busybox_image.push(registry_basic, "support/busybox:1")
    with pytest.raises(AssertionError, match=r"401|unauthorized"):
        run(["skopeo", "inspect", "--tls-verify=false", f"docker://{registry_basic.reference('support/busybox:1')}"])


def test_the_token_registry_gives_tokens(registry_token, busybox_image):
    busybox_image.push(registry_token, "public/busybox:1")
    busybox_image.push(registry_token, "private/busybox:1")
    public, private = (f"docker://{registry_token.reference(f'{name}/busybox:1')}" for name in ("public", "private"))
    run(["skopeo", "inspect", "--tls-verify=false", "--no-creds", public])
    with pytest.raises(AssertionError, match=r"denied|unauthorized"):
        run(["skopeo", "inspect", "--tls-verify=false", "--no-creds", private])
    assert {asked.account for asked in registry_token.tokens.requests} == {"tester", ""}


def test_the_tls_registry_is_verifiable(registry_tls):
    status, _, _ = registry_tls.request("GET", "/v2/")
    assert status == 200


def test_the_index_has_the_platforms(multi_platform_image):
    platforms = [row["platform"] for row in multi_platform_image.manifest()["manifests"]]
    assert [(row["architecture"], row.get("variant")) for row in platforms] == [
        ("amd64", None),
        ("arm64", "v8"),
        ("arm", "v7"),
        ("arm", "v6"),
    ]


def test_the_layered_image_unpacks_to_what_was_meant(layered_image, tmp_path):
    assert len(layered_image.manifest()["layers"]) == 4
    bundle = tmp_path / "bundle"
    run(["umoci", "unpack", "--image", f"{layered_image.path}:latest", str(bundle)])
    root = bundle / "rootfs"
    assert sorted(os.listdir(root / "opaque")) == ["new"]
    assert not (root / "data/gone").exists()
    assert (root / "data/one").stat().st_nlink == 2
    assert os.getxattr(root / "data/one", "user.colour") == b"blue\0green"
    assert (root / "data/sub/y").stat().st_mode & 0o7777 == 0o4711
    assert os.path.exists(os.fsencode(root) + b"/data/latin-\xe4\xff")
    assert (root / "data/one").stat().st_mtime_ns // 10**9 == 1_000_000_000


def test_evil_images_are_what_other_tools_read(registry, tmp_path):
    layer = Layer().directory("d").file("d/" + "n" * 150, b"text").symlink("d/link", "../x").whiteout("d/gone")
    image = EvilImage([layer, Layer("zstd").file("é", pax={"SCHILY.xattr.user.a": b"\0b"})], config={"User": "app"})
    reference = image.push(registry, "support/evil:1")
    seen = run(["skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{reference}"]).stdout
    assert '"User": "app"' in seen
    with tarfile.open(fileobj=io.BytesIO(layer.tar)) as archive:
        assert archive.getnames() == ["d", "d/" + "n" * 150, "d/link", "d/.wh.gone"]
    image.write_docker_archive(str(tmp_path / "a.tar"), "evil:1")
    run(["skopeo", "inspect", f"docker-archive:{tmp_path}/a.tar"])
    image.write_layout(str(tmp_path / "layout"))
    run(["skopeo", "inspect", f"oci:{tmp_path}/layout:latest"])


@pytest.mark.host
def test_the_ordinary_user_is_one_and_has_subordinate_ids(ordinary_user):
    out = ordinary_user.run(["sh", "-c", "id -u; id -un; echo $HOME; cat /etc/subuid"]).stdout.split()
    assert out[:3] == [str(ordinary_user.uid), ordinary_user.name, ordinary_user.home]
    assert out[3].startswith(f"{ordinary_user.name}:")
    mapped = ["unshare", "--user", "--map-auto", "--map-root-user", "cat", "/proc/self/uid_map"]
    assert len(ordinary_user.run(mapped).stdout.splitlines()) == 2
    ordinary_user.run([ordinary_user.python, "-c", "import hutch, msgspec, zstandard, isal.isal_zlib, urllib3"])


@requires("root")
def test_the_single_id_user_has_no_subordinate_ids(single_id_user):
    assert single_id_user.run(["cat", "/etc/subuid"]).stdout == ""
    with open("/etc/passwd", encoding="utf-8") as file:
        assert "hutcher" not in file.read()


def test_docker_and_podman_run_an_image_and_leave_nothing(docker, podman, busybox_image, registry):
    reference = busybox_image.push(registry, "support/peers:1")
    docker("pull", "--quiet", reference)
    assert docker("run", "--rm", "--network=none", reference, "echo", "docker").stdout == "docker\n"
    podman("pull", "--quiet", "--tls-verify=false", reference)
    assert run(podman.run_command("--rm", "--network=none", reference, "echo", "podman")).stdout == "podman\n"
