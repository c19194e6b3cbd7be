"""`ps` over containers in every state: what filters choose, and what templates make of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.evil import EvilImage, Layer
from tests.support.host import requires
from tests.support.programs import wait_until

pytestmark = requires("root")

# What scripts ask docker for, and what is said of the container that runs.
INSPECTED = [
    ("{{.Name}} {{.State.Status}} {{.State.Running}} {{.State.ExitCode}}", "/up running true 0"),
    ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}} {{.State.Health}}", "no check <nil>"),
    ('{{index .Config.Labels "tier"}}|{{index .Config.Labels "nope"}}|{{.Config.Labels.nope}}', "web||<no value>"),
    ("{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}}{{end}}", "volume data /data"),
    ("{{.HostConfig.RestartPolicy.Name}} {{len .Config.Cmd}} {{join .Config.Cmd `+`}}", "no 2 sleep+100"),
    ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}|{{.Config.Entrypoint}}", "none|[]"),
]


@pytest.fixture
def hutch(tmp_root, cgroup_parent):
    """Containers that run, are paused, have ended and never ran."""
    cli = Cli(tmp_root.options, {"HUTCH_CONFIG": "/nonexistent"})
    busybox = Path(os.path.realpath("/bin/busybox")).read_bytes()
    base = Layer().directory("bin").file("bin/busybox", busybox, mode=0o755).directory("tmp", mode=0o1777)
    for name in ("sh", "sleep", "true"):
        base.symlink(f"bin/{name}", "busybox")
    for name, layers in (("base", [base]), ("derived", [base, Layer().file("more", b"")])):
        image = EvilImage(layers, config={}).write_layout(f"{tmp_root.base}/{name}", name)
        cli("tag", cli("load", "-i", image).stdout.split()[-1], name)
    cli("run", "-d", "--cgroup-parent", cgroup_parent, "--name", "up", "-l", "tier=web", "-v", "data:/data", "base",
        "sleep", "100")  # fmt: skip
    cli("run", "-d", "--cgroup-parent", cgroup_parent, "--name", "frozen", "derived", "sleep", "100")
    cli("pause", "frozen")
    cli("run", "--cgroup-parent", cgroup_parent, "--name", "done", "base", "sh", "-c", "exit 3", check=False)
    cli("create", "--cgroup-parent", cgroup_parent, "--name", "new", "-l", "tier=db", "derived", "true")
    yield cli
    cli("rm", "-f", "up", "frozen", "done", "new")
    wait_until(lambda: cli("ps", "-aq").stdout == "", 10)


def test_what_filters_choose_and_templates_show(hutch):
    def names(*arguments):
        return " ".join(hutch("ps", "--format", "{{.Names}}", *arguments).stdout.split())

    assert names() == "frozen up"
    assert names("-a") == "new done frozen up"
    assert names("-n", "2") == "new done"
    assert names("-l") == "new"
    assert names("-f", "status=exited") == "done"
    assert names("-f", "status=created", "-f", "status=paused") == "new frozen"
    assert names("-a", "-f", "exited=3") == "done"
    assert names("-a", "-f", "exited=0") == ""
    assert names("-a", "-f", "label=tier") == "new up"
    assert names("-f", "label=tier") == "up"
    assert names("-a", "-f", "ancestor=derived") == "new frozen"
    assert names("-a", "-f", "ancestor=base") == "new done frozen up"
    assert names("-a", "-f", "before=done") == "frozen up"
    assert names("-a", "-f", "since=done") == "new"
    assert names("-f", "volume=data") == names("-f", "volume=/data") == "up"
    assert names("-f", "name=^u") == "up"
    assert names("-f", "health=none") == "frozen up"

    line = json.loads(hutch("ps", "--format", "json", "-f", "name=up").stdout)
    assert (line["Names"], line["State"], line["Labels"]) == ("up", "running", "tier=web")
    assert (line["Mounts"], line["LocalVolumes"]) == ("data", "1")
    shown = hutch("ps", "-a", "--format", r'table {{.Names}}\t{{.Label "tier"}}\t{{title .State}}').stdout
    assert [each.split() for each in shown.splitlines()] == [
        ["NAMES", "tier", "STATE"], ["new", "db", "Created"], ["done", "Exited"], ["frozen", "Paused"],
        ["up", "web", "Running"],
    ]  # fmt: skip

    assert "invalid filter 'colour'" in hutch.fails("ps", "-f", "colour=red")
    assert "filter 'is-task' is not supported" in hutch.fails("ps", "-f", "is-task=true")
    assert "no such container: nobody" in hutch.fails("ps", "-f", "before=nobody")
    assert "can't evaluate field Nope" in hutch.fails("ps", "--format", "{{.Nope}}")

    for template, text in INSPECTED:
        assert hutch("inspect", "--format", template, "up").stdout == f"{text}\n"
