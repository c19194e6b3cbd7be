"""The real docker client, given fixed answers of an API, and hutch, given the same values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hutch.cli.output import render
from hutch.errors import InvalidArgument
from tests.support.dockerapi import answering
from tests.support.programs import run

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs docker's client")

TABLE = json.loads((Path(__file__).parents[1] / "unit/cli/docker_templates.json").read_text(encoding="utf-8"))
CONTAINERS = [
    {"Id": "a" * 64, "Names": ["/quiet_otter"], "Image": "debian:bookworm", "ImageID": "sha256:1",
     "Command": "sleep inf", "Created": 1000000000, "Ports": [], "State": "running",
     "Labels": {"tier": "web", "com.x.stack-name": "s"},
     "Status": "Up 3 hours", "Mounts": [], "NetworkSettings": {"Networks": {"none": {}}}},
    {"Id": "b" * 64, "Names": ["/b"], "Image": "a-longer-name/of-an-image:with-a-tag", "ImageID": "sha256:2",
     "Command": "sh <x> & 'y'", "Created": 1000000001, "Ports": [], "Labels": {}, "State": "exited",
     "Status": "Exited (0) 5 minutes ago", "Mounts": [], "NetworkSettings": {"Networks": {}}},
]  # fmt: skip
ROWS = [
    {"ID": each["Id"][:12], "Names": each["Names"][0][1:], "Image": each["Image"], "Command": f'"{each["Command"]}"',
     "Labels": each["Labels"], "State": each["State"], "Status": each["Status"], "Ports": "",
     "Networks": list(each["NetworkSettings"]["Networks"])}
    for each in CONTAINERS
]  # fmt: skip
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))
TEMPLATES = [
    "{{.ID}}",
    "{{.ID}}: {{.Names}} {{.Status}}",
    r"table {{.ID}}\t{{.Names}}\t{{.Status}}",
    r"table {{.Names}}\t{{.Image}}",
    r"table {{.Image}}\t{{.Names}}\t{{.Command}}\t{{.Labels}}",
    r"table {{.State}}\t{{upper .Names}}\t{{json .Image}}",
    r"table {{.Names}}\t{{.Label \"tier\"}}\t{{.Label \"com.x.stack-name\"}}".replace('\\"', '"'),
    r"table {{.Names}}",
    r"table {{pad .ID 2 2}}\t{{truncate .Image 4}}",
    r"table {{.Names}}\t{{if eq .State \"running\"}}up{{end}}\tx".replace('\\"', '"'),
    r"table {{.Names}}\n{{.ID}}\t{{.Status}}",
    r"table{{.Names}}\t{{.ID}}",
    r"{{.Names}}\t{{.ID}}\n",
    "{{json .Labels}} {{json .Command}} {{.Label `tier`}}",
    "{{range $i, $e := split .Image `:`}}{{$i}}{{$e}} {{end}}",
    "{{if .Labels}}{{.Labels}}{{else}}no labels{{end}}",
    r"{{printf \"%-20s|%5s\" .Names .State}}".replace('\\"', '"'),
    "  {{.Names}}  ",
    "{{.Names}} {{- .State -}} .",
]


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    answers = {"/containers/c1/json": TABLE["document"], "/containers/json": CONTAINERS}
    with answering(str(tmp_path_factory.mktemp("docker")), answers) as env:
        yield lambda *argv: run(["docker", *argv], env=env, check=False)


@pytest.mark.parametrize(("template", "text", "error"), TABLE["answers"][::12])
def test_docker_still_answers_as_in_the_table(docker, template, text, error):
    done = docker("container", "inspect", "--format", template, "c1")
    if error is None:
        assert (done.returncode, done.stdout) == (0, f"{text}\n")
    else:
        assert done.returncode != 0 and done.stderr.strip() == error


@pytest.mark.parametrize("template", TEMPLATES)
def test_rows_look_like_dockers(docker, template):
    assert render(ROWS, template, COLUMNS) + "\n" == docker("ps", "-a", "--format", template).stdout


@pytest.mark.parametrize("template", ["{{.ID", "{{foo}}", "{{.ID || .ID}}", "{{if .ID}}"])
def test_refusals_are_worded_like_dockers(docker, template):
    with pytest.raises(InvalidArgument) as caught:
        render(ROWS, template, COLUMNS)
    theirs = docker("ps", "-a", "--format", template).stderr.strip()  # its first words differ from command to command
    assert str(caught.value) == f"template parsing error: template: :{theirs.partition('template: :')[2]}"


def test_json_lines_are_dockers(docker):
    theirs = [json.loads(line) for line in docker("ps", "-a", "--format", "json").stdout.splitlines()]
    ours = [json.loads(line) for line in render(ROWS, "json", COLUMNS).splitlines()]
    assert [{key: line[key] for key in ROWS[0]} for line in theirs] == ours
