"""The command line of hutch-oci: flags as Go reads them, and the errors other engines look for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hutch.errors import InvalidArgument
from hutch.runtime import main
from hutch.runtime.arguments import BOOLEAN, NUMBER, TEXT, TEXTS, Flag, count, parse

FLAGS = (
    Flag("all", BOOLEAN, "", letter="a"),
    Flag("env", TEXTS, "", letter="e"),
    Flag("bundle", TEXT, "", letter="b", default="."),
    Flag("preserve-fds", NUMBER, ""),
)
SOURCE = str(Path(main.__file__).parents[2])


def hutch_oci(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); from hutch.runtime.main import run; run()"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--all", "--env", "A=1", "-e", "B=2=3", "--bundle=/b", "--preserve-fds", "4", "id", "KILL"],
        ["-all", "-env=A=1", "-e=B=2=3", "-b", "/b", "-preserve-fds=4", "id", "KILL"],
        ["id", "-a", "KILL", "--env", "A=1", "--env", "B=2=3", "-b=/b", "--preserve-fds=4"],
        [
            "--all=true",
            "--env=A=1",
            "--env=B=2=3",
            "--bundle",
            "/x",
            "--bundle",
            "/b",
            "--preserve-fds=4",
            "--",
            "id",
            "KILL",
        ],
    ],
)
def test_flags_are_read_as_go_reads_them(words: list[str]) -> None:
    options, rest = parse(FLAGS, words, interleaved=True)
    assert rest == ["id", "KILL"]
    assert options.on("all")
    assert options.texts("env") == ["A=1", "B=2=3"]
    assert options.text("bundle") == "/b"
    assert options.number("preserve-fds") == 4


def test_defaults() -> None:
    options, rest = parse(FLAGS, [], interleaved=True)
    assert (rest, options.on("all"), options.texts("env"), options.text("bundle")) == ([], False, [], ".")
    assert options.number("preserve-fds") == 0
    assert not options.given("bundle")
    with pytest.raises(KeyError):
        options.on("al")


def test_the_rest_of_an_exec_is_the_program_s() -> None:
    options, rest = parse(FLAGS, ["-a", "id", "sh", "-c", "--all=x"], interleaved=False)
    assert rest == ["id", "sh", "-c", "--all=x"]
    assert options.on("all")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--foo"], "flag provided but not defined: -foo"),
        (["-x=1"], "flag provided but not defined: -x"),
        (["--bundle"], "flag needs an argument: -bundle"),
        (["--all=perhaps"], "invalid boolean value 'perhaps' for -all"),
        (["--preserve-fds", "x"], "invalid value 'x' for flag -preserve-fds"),
        (["--preserve-fds", "٣"], "not a number"),
        (["--preserve-fds", "9" * 5000], "not a number"),
    ],
)
def test_a_wrong_flag_is_named(words: list[str], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        parse(FLAGS, words, interleaved=True)


def test_arguments_are_counted() -> None:
    count("kill", ["a"], 1, 2)
    with pytest.raises(InvalidArgument, match='"kill" requires a minimum of 1'):
        count("kill", [], 1, 2)
    with pytest.raises(InvalidArgument, match='"kill" requires a maximum of 2'):
        count("kill", ["a"] * 3, 1, 2)


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    result = hutch_oci(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"NAME:\n   hutch-oci {name} - ")


def test_help_names_every_command() -> None:
    for words in ([], ["--help"], ["help"]):
        result = hutch_oci(*words)
        assert result.returncode == 0
        for name in main.COMMANDS:
            assert f"\n   {name} " in result.stdout


def test_version_is_in_runc_s_shape() -> None:
    result = hutch_oci("--version")
    assert result.returncode == 0
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith("hutch-oci version ")
    assert second.startswith("spec: 1.")


def test_an_unknown_global_flag_fails_and_is_named() -> None:
    result = hutch_oci("--frobnicate", "list")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "flag provided but not defined: -frobnicate" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_error_is_one_line_of_text(tmp_path: Path) -> None:
    result = hutch_oci("--root", str(tmp_path), "state", "nope")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith('time="20')
    assert result.stderr.endswith('Z" level=error msg="container nope does not exist"\n')


def test_an_error_goes_to_the_log_as_json_and_to_stderr_in_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        result = hutch_oci("--log", str(log), "--log-format", "json", "--root", str(tmp_path), "state", "nope")
        assert result.stderr == "container nope does not exist\n"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 2
    assert {*lines[0]} == {"level", "msg", "time"}
    assert lines[0]["level"] == "error"
    assert lines[0]["msg"] == "container nope does not exist"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--log-format", "xml", "list"], "unknown log-format 'xml'"),
        (["--rootless", "maybe", "list"], "--rootless: 'maybe' is not true, false or auto"),
        (["--log", "/nowhere/log", "list"], "/nowhere/log: no such file or directory"),
        (["frobnicate"], "no such command: frobnicate"),
        (["state"], '\\"state\\" requires a minimum of 1'),
        (["state", "../x"], "invalid container id format: '../x'"),
        (["checkpoint", "--leave-running", "x"], "not supported"),
        (["restore", "x"], "not supported"),
        (["kill", "x", "FOO"], "unknown signal 'FOO'"),
        (["events", "--interval", "5", "x"], "invalid duration '5'"),
        (["update", "--l3-cache-schema", "L3:0=f", "x"], "Intel RDT is not supported"),
        (["list", "--format", "yaml"], "invalid format option"),
    ],
)
def test_bad_command_lines(words: list[str], complaint: str, tmp_path: Path) -> None:
    result = hutch_oci("--root", str(tmp_path), *words)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_list_of_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    assert (
        hutch_oci("--root", root, "list").stdout
        == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    )
    assert hutch_oci("--root", root, "list", "-q").stdout == ""
    assert hutch_oci("--root", root, "list", "-f", "json").stdout == "null\n"
    assert not Path(root).exists()


def test_deleting_what_is_not_there(tmp_path: Path) -> None:
    assert hutch_oci("--root", str(tmp_path), "delete", "nope").returncode == 1
    result = hutch_oci("--root", str(tmp_path), "delete", "--force", "nope")
    assert (result.returncode, result.stderr) == (0, "")


def test_spec_writes_a_configuration_once(tmp_path: Path) -> None:
    assert hutch_oci("spec", "--bundle", str(tmp_path)).returncode == 0
    spec = json.loads((tmp_path / "config.json").read_text())
    assert spec["process"]["terminal"] is True
    assert spec["root"] == {"path": "rootfs", "readonly": True}
    again = hutch_oci("spec", "-b", str(tmp_path))
    assert again.returncode == 1
    assert "config.json exists (remove it first)" in again.stderr


def test_spec_for_an_ordinary_user(tmp_path: Path) -> None:
    assert hutch_oci("spec", "--rootless", "-b", str(tmp_path)).returncode == 0
    linux = json.loads((tmp_path / "config.json").read_text())["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert {"type": "user"} in linux["namespaces"]
    assert {"type": "network"} not in linux["namespaces"]
    assert "resources" not in linux


def test_the_default_root_is_the_user_s(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root's default is /run/hutch-oci")
    result = hutch_oci("state", "x", XDG_RUNTIME_DIR=str(tmp_path))
    assert "container x does not exist" in result.stderr
