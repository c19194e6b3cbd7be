"""Images from the command line: pulled from real registries, listed, named, inspected, removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Roots
from tests.support.cli import Cli
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import run
from tests.support.registries import PASSWORD, USERNAME, Registry

pytestmark = requires("root")


@pytest.fixture
def hutch(tmp_root: Roots) -> Cli:
    return Cli(tmp_root.options, {"DOCKER_CONFIG": f"{tmp_root.base}/docker"})


def test_pull_says_what_docker_says(hutch: Cli, registry: Registry, busybox_image: Image) -> None:
    name = busybox_image.push(registry, "cli/pull:latest")
    bare = name.removesuffix(":latest")
    lines = hutch("pull", bare).stdout.splitlines()
    assert lines[0] == "Using default tag: latest"
    assert lines[1] == "latest: Pulling from cli/pull"
    assert any(line.endswith(": Pull complete") for line in lines)
    assert f"Status: Downloaded newer image for {name}" in lines
    assert lines[-1] == name
    assert f"Status: Image is up to date for {name}" in hutch("pull", bare).stdout
    assert hutch("pull", "-q", bare).stdout == f"{name}\n"


def test_list_shows_names_ids_and_digests(hutch: Cli, registry: Registry, busybox_image: Image) -> None:
    name = busybox_image.push(registry, "cli/list:one", "--preserve-digests")
    hutch("pull", name)
    header, row = hutch("image", "ls").stdout.splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert row.split()[:2] == [f"{registry.host}/cli/list", "one"]
    full = json.loads(hutch("images", "--format", "json", "--no-trunc").stdout)
    assert full["ID"] == busybox_image.manifest()["config"]["digest"]
    listed = hutch("images", "--digests", "--format", "{{.Digest}}").stdout.strip()
    assert listed == busybox_image.digest
    assert hutch("images", "-q").stdout.strip() == full["ID"].removeprefix("sha256:")[:12]
    assert hutch("images", "-q", "--filter", "reference=*/cli/nothing").stdout == ""
    assert hutch("images", "-q", f"{registry.host}/cli/list").stdout != ""
    assert hutch("images", "-q", "--filter", "dangling=true").stdout == ""
    assert "invalid filter 'colour'" in hutch.fails("images", "--filter", "colour=red")


def test_tag_inspect_history_and_remove(hutch: Cli, registry: Registry, busybox_image: Image) -> None:
    name = busybox_image.push(registry, "cli/life:1", "--preserve-digests")
    hutch("pull", "-q", name)
    hutch("tag", name, "mine:2")
    (document,) = json.loads(hutch("image", "inspect", "mine:2").stdout)
    assert document["RepoTags"] == sorted([name, "mine:2"])
    assert document["RepoDigests"] == [f"{registry.host}/cli/life@{busybox_image.digest}"]
    assert document["Os"] == "linux"
    assert document["Size"] > 100_000
    assert hutch("image", "inspect", "-f", "{{.Id}}", "mine:2").stdout.strip() == document["Id"]
    history = hutch("history", "--no-trunc", "mine:2").stdout.splitlines()
    assert history[0].split()[0] == "IMAGE"
    assert document["Id"] in history[1]
    assert hutch("rmi", "mine:2").stdout == "Untagged: mine:2\n"
    gone = hutch("image", "rm", name).stdout.splitlines()
    assert gone[0] == f"Untagged: {name}"
    assert f"Deleted: {document['Id']}" in gone
    assert "no such image" in hutch.fails("rmi", name)
    assert hutch("rmi", "-f", name).stdout == ""
    blobs = Path(hutch.words[hutch.words.index("--root") + 1], "content", "blobs", "sha256")
    assert list(blobs.iterdir()) == []


def test_prune_takes_dangling_images_and_with_all_the_unused(
    hutch: Cli, registry: Registry, busybox_image: Image
) -> None:
    hutch("pull", "-q", busybox_image.push(registry, "cli/prune:1"))
    assert "Total reclaimed space: 0B" in hutch("image", "prune", "-f").stdout
    assert "add --force" in hutch.fails("image", "prune")
    done = hutch("image", "prune", "--all", "--force").stdout
    assert "Untagged:" in done
    assert "Total reclaimed space: 0B" not in done
    assert hutch("images", "-q").stdout == ""


def test_all_tags(hutch: Cli, registry: Registry, busybox_image: Image) -> None:
    for tag in ("a", "b"):
        busybox_image.push(registry, f"cli/all:{tag}")
    hutch("pull", "-a", f"{registry.host}/cli/all")
    assert sorted(hutch("images", "--format", "{{.Tag}}").stdout.split()) == ["a", "b"]
    assert "can't be used with" in hutch.fails("pull", "-a", f"{registry.host}/cli/all:a")


def test_platform_is_chosen_and_a_wrong_one_is_named(
    hutch: Cli, registry: Registry, multi_platform_image: Image
) -> None:
    name = multi_platform_image.push(registry, "cli/multi:1")
    hutch("pull", "-q", "--platform", "linux/arm64", name)
    assert hutch("image", "inspect", "-f", "{{.Architecture}}", name).stdout.strip() == "arm64"
    assert "s390x" in hutch.fails("pull", "--platform", "linux/s390x", name)


def test_unknown_image_and_wrong_names(hutch: Cli, registry: Registry) -> None:
    assert "not found" in hutch.fails("pull", f"{registry.host}/no/such:1")
    assert "lower case" in hutch.fails("pull", f"{registry.host}/NotThis")
    assert "requires at least 1 argument" in hutch.fails("pull")
    assert "unknown flag: --nope" in hutch.fails("pull", "--nope", "x", status=125)


@pytest.mark.parametrize("kind", ["registry_basic", "registry_token"])
def test_login_keeps_what_pull_needs(
    hutch: Cli, kind: str, request: pytest.FixtureRequest, busybox_image: Image
) -> None:
    registry: Any = request.getfixturevalue(kind)
    name = busybox_image.push(registry, "cli/login:1")
    hutch.fails("pull", name)
    said = hutch.fails("login", "-u", USERNAME, "--password-stdin", registry.host, stdin="wrong\n")
    assert "wrong user name or password" in said or "unauthorized" in said.lower()
    done = hutch("login", "-u", USERNAME, "--password-stdin", registry.host, stdin=f"{PASSWORD}\n")
    assert done.stdout == "Login Succeeded\n"
    config = Path(hutch.env["DOCKER_CONFIG"], "config.json")
    assert config.stat().st_mode & 0o777 == 0o600
    hutch("pull", "-q", name)
    assert hutch("logout", registry.host).stdout == f"Removing login credentials for {registry.host}\n"
    assert hutch("logout", registry.host).stdout == f"Not logged in to {registry.host}\n"
    hutch("rmi", name)
    hutch.fails("pull", name)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_save_writes_load_reads_and_skopeo_too(
    hutch: Cli, tmp_root: Roots, busybox_image: Image, kind: str
) -> None:
    archive = f"{tmp_root.base}/from-skopeo.tar"
    busybox_image.copy_to(f"docker-archive:{archive}:busy:box")
    assert hutch("load", "-i", archive).stdout == "Loaded image: busy:box\n"
    identity = hutch("images", "-q", "--no-trunc").stdout.strip()
    saved = f"{tmp_root.base}/saved"
    hutch("save", "--format", kind, "-o", saved, "busy:box")
    transport = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci-dir": "oci"}[kind]
    shown = json.loads(run(["skopeo", "inspect", "--config", f"{transport}:{saved}"]).stdout)
    assert shown["os"] == "linux"
    hutch("rmi", "busy:box")
    assert "Loaded image: busy:box" in hutch("load", "--input", saved).stdout
    assert hutch("images", "-q", "--no-trunc").stdout.strip() == identity


def test_import_makes_an_image_that_runs(hutch: Cli, tmp_root: Roots) -> None:
    busybox = shutil.which("busybox")
    assert busybox
    tar = ["tar", "-C", os.path.dirname(busybox), "-c", "busybox"]
    archive = subprocess.run(tar, check=True, capture_output=True).stdout
    done = hutch("import", "-c", 'CMD ["/busybox", "echo", "hi"]', "-m", "by hand", "-", "imported", stdin=archive)
    assert done.stdout.startswith("sha256:")
    assert "by hand" in hutch("history", "imported").stdout
    assert hutch("run", "--rm", "imported").stdout == "hi\n"
    assert "not one of" in hutch.fails("import", "-c", "JUMP high", "-", stdin=archive)


def test_load_refuses_what_is_no_archive(hutch: Cli, tmp_root: Roots) -> None:
    assert "hutch: " in hutch.fails("load", stdin="this is not a tar" * 100)
    assert "no such file" in hutch.fails("load", "-i", f"{tmp_root.base}/missing").lower()
    assert "no such image" in hutch.fails("save", "-o", f"{tmp_root.base}/x", "missing")
    assert not os.path.exists(f"{tmp_root.base}/x")
