"""Templates against the answers of the real docker client, which tools/record_templates.py wrote down."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hutch.cli.gotemplate.nodes import TemplateError
from hutch.cli.gotemplate.template import Template
from hutch.cli.gotemplate.values import Row

TABLE = json.loads((Path(__file__).parent / "docker_templates.json").read_text(encoding="utf-8"))

# Where hutch differs on purpose, and why.
ABSENT = "a struct is printed with the fields that its JSON has"
NUMBER = "docker's second try has numbers as text; here they stay numbers"
NAME = "docker spells this field ID, so asking for .Id makes it take its second try"
DIFFERS = {
    "{{.State}}": ABSENT,
    "{{.Mounts}}": ABSENT,
    "{{index .Mounts 0}}": ABSENT,
    "{{.Config.Healthcheck}}": ABSENT,
    '{{printf "%v" (split "a b" " ")}} {{printf "%v|%s|%q" .Mounts .Config.Cmd .Config.Env}}': ABSENT,
    "{{index .State.Pid 0}}": NUMBER,
    "{{printf .State.Pid}}": NUMBER,
    "{{upper .State.Pid}}": NUMBER,
    '{{printf "%s" .Id}} {{printf "%d" .State.Pid}} {{printf "%v" .Config.Env}}': NUMBER,
    '{{len .Config.Env}} {{len .Id}} {{len .Config.Labels}} {{len .Config.Entrypoint}} {{len "é"}}': NAME,
    "{{len .ExecIDs}}{{.Id}}": NAME,
    "{{json .HostConfig.RestartPolicy}} {{json .HostConfig.Sysctls}} {{json .GraphDriver}}": NAME,
    "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} "
    "{{.HostConfig.Binds}} {{.HostConfig.OomKillDisable}} {{.HostConfig.PidsLimit}}": NAME,
    '{{printf "%#v %#v %#v %#v %#v" 1 "a" 1.5 true .Config.Cmd}}': "the name of a Go type of docker's",
    "{{ 1i }}": "no complex numbers",
    "{{prettyjson .Args}}": "only hutch has it",
    "{{len nil}}": "docker names the internals of Go",
}


@pytest.mark.parametrize(("template", "text", "error"), TABLE["answers"])
def test_templates_are_what_docker_makes_of_them(template, text, error):
    try:
        found = (Template(template).apply(TABLE["document"]), None)
    except TemplateError as problem:
        found = (None, str(problem))
    if template in DIFFERS:
        assert found != (text, error), "differs no more"
    else:
        assert found == (text, error)


@pytest.mark.parametrize(
    "template",
    [
        '{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}',
        "{{range 999999999}}{{range 999999999}}{{end}}{{end}}",
        "{{$x := `0123456789abcdef`}}{{range 40}}{{$x = print $x $x}}{{end}}",
        "{{range 99999999}}0123456789abcdef0123456789abcdef{{end}}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{if 1}}" * 5000 + "{{end}}" * 5000,
        '{{pad "x" 999999999 0}}',
        '{{printf "%1000000d%1000000d%1000000d" 1 1 1 | printf "%s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s"}}',
        "x" * (2 << 20),
    ],
)
def test_no_template_takes_long_or_makes_much(template):
    with pytest.raises(TemplateError, match="more than|exceeded"):
        Template(template).apply({})


def test_nothing_that_is_typed_ends_in_anything_but_text_or_an_error():
    chosen = random.Random(7)
    templates = [template for template, _, _ in TABLE["answers"]]
    pieces = [re.findall(r"\{\{-?|-?\}\}|\"[^\"]*\"|`[^`]*`|[.$\w]+|\s|.", template) for template in templates]
    words = sorted({word for piece in pieces for word in piece})
    for _ in range(3000):
        changed = list(chosen.choice(pieces))
        for _ in range(chosen.randrange(1, 5)):
            place = chosen.randrange(len(changed) + 1)
            changed[place : place + chosen.randrange(3)] = [chosen.choice(words)]
        try:
            Template("".join(changed)).apply(TABLE["document"])
        except TemplateError as error:
            assert str(error).startswith("template parsing error: template: :")


def test_rows_say_which_fields_they_have():
    with pytest.raises(TemplateError, match="can't evaluate field Nope") as caught:
        Template("{{.Nope}}").apply(Row({"ID": "a", "Names": "b"}))
    assert caught.value.hint == "fields: ID, Names"


def test_methods_take_one_text():
    row = Row({"Label": lambda name: name.upper()})
    assert Template('{{.Label "a"}} {{"b" | .Label}} {{$.Label `c`}}').apply(row) == "A B C"
    for wrong in ("{{.Label}}", '{{.Label "a" "b"}}', "{{.Label 1}}"):
        with pytest.raises(TemplateError):
            Template(wrong).apply(row)


def test_importing_templates_takes_nothing_that_is_dear():
    probe = "import sys; import hutch.cli.gotemplate.template; print(*sys.modules)"
    src = Path(__file__).resolve().parents[3] / "src"
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(src)!r}); {probe}"]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert not {"re", "json", "enum", "typing", "dataclasses", "collections", "inspect"} & set(loaded)
