"""Docker's config.json and credential helpers; challenges; where registries may be."""

from __future__ import annotations

import base64
import json
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import HutchError, InvalidArgument, InvalidConfig
from hutch.image import hosts
from hutch.image.auth import parse_challenges
from hutch.image.connections import error_message
from hutch.image.credentials import HUB_KEY, Credentials, CredentialStore
from hutch.image.registries import Registries

SECRET = "marker-secret-4711"
HELPER = """#!/bin/sh
# A credential helper that keeps one secret a server in files.
dir="{directory}/kept"; mkdir -p "$dir"
case "$1" in
get) read -r server; file="$dir/$(echo "$server" | tr -c 'a-z0-9\\n' _)"
     [ -f "$file" ] || {{ echo "credentials not found in native keychain"; exit 1; }}; cat "$file" ;;
store) doc=$(cat); server=$(echo "$doc" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/')
     echo "$doc" > "$dir/$(echo "$server" | tr -c 'a-z0-9\\n' _)" ;;
erase) read -r server; rm -f "$dir/$(echo "$server" | tr -c 'a-z0-9\\n' _)" ;;
esac
"""


def auth(user, password):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "docker" / "config.json")


def written(path, document):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(document if isinstance(document, str) else json.dumps(document))
    return CredentialStore(path, search_path="")


def test_credentials_are_found_under_the_names_docker_uses(path):
    store = written(
        path, {"auths": {HUB_KEY: {"auth": auth("hub", "a:b")}, "https://r.example/v1/": {"auth": auth("u", "p")}}}
    )
    assert store.get("docker.io") == Credentials("hub", "a:b")
    assert store.get("r.example") == Credentials("u", "p")
    assert store.get("r.example:5000") is None
    assert store.get("other.example") is None
    assert CredentialStore(path + ".none").get("docker.io") is None


def test_tokens_in_the_place_of_passwords(path):
    store = written(
        path, {"auths": {"a": {"auth": auth("u", ""), "identitytoken": "i"}, "b": {"registrytoken": "r"}, "c": {}}}
    )
    assert store.get("a") == Credentials(identity_token="i")
    assert store.get("b") == Credentials(registry_token="r")
    assert store.get("c") is None


def test_g10_the_file_is_private_whole_and_keeps_what_is_not_ours(path):
    store = written(
        path, {"HttpHeaders": {"X": "y"}, "auths": {"old.example": {"auth": auth("o", "p")}}, "psFormat": "z"}
    )
    os.chmod(path, 0o644)
    assert store.put("new.example", Credentials("u", SECRET)) == path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as file:
        document = json.load(file)
    assert document["HttpHeaders"] == {"X": "y"}
    assert document["psFormat"] == "z"
    assert set(document["auths"]) == {"old.example", "new.example"}
    assert store.get("new.example") == Credentials("u", SECRET)
    assert os.listdir(os.path.dirname(path)) == ["config.json"]
    assert store.remove("new.example")
    assert not store.remove("new.example")
    assert store.get("old.example") == Credentials("o", "p")


def test_a_link_to_the_file_stays_a_link(path, tmp_path):
    store = written(str(tmp_path / "dotfiles" / "config.json"), {})
    os.makedirs(os.path.dirname(path))
    os.symlink("../dotfiles/config.json", path)
    CredentialStore(path, search_path="").put("r.example", Credentials("u", "p"))
    assert os.path.islink(path)
    assert store.get("r.example") == Credentials("u", "p")


def test_docker_config_in_the_environment_is_honoured(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "elsewhere"))
    assert CredentialStore().path == str(tmp_path / "elsewhere" / "config.json")
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CredentialStore().path == str(tmp_path / ".docker" / "config.json")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths":[]}',
        '{"auths":{"r":{"auth":"%%%"}}}',
        '{"auths":{"r":{"auth":"bm9jb2xvbg=="}}}',
        '{"auths":{"r":{"auth":1}}}',
        '{"auths":{},"auths":{}}',
    ],
)
def test_a_damaged_file_is_named_without_its_secrets(path, text):
    store = written(path, text)
    with pytest.raises(InvalidConfig, match="config") as caught:
        store.get("r")
    assert "bm9jb2xvbg" not in str(caught.value)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(InvalidConfig, match="not a regular file"):
        store.get("r")


def test_g10_no_repr_has_a_secret():
    shown = repr(Credentials("u", SECRET, SECRET, SECRET))
    assert SECRET not in shown
    assert "'u'" in shown


def helper(tmp_path, text, name="docker-credential-test"):
    program = tmp_path / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(text.format(directory=tmp_path))
    program.chmod(0o755)
    return f"relative:{program.parent}:/bin:/usr/bin"


@pytest.mark.parametrize(
    "document", [{"credsStore": "test"}, {"credHelpers": {"r.example": "test"}, "credsStore": "absent"}]
)
def test_helpers_store_find_and_erase(path, tmp_path, document):
    written(path, document)
    store = CredentialStore(path, search_path=helper(tmp_path, HELPER))
    assert store.get("r.example") is None
    assert "test" in store.put("r.example", Credentials("u", SECRET))
    assert store.get("r.example") == Credentials("u", SECRET)
    store.put("r.example", Credentials("u", identity_token="i"))
    assert store.get("r.example") == Credentials(identity_token="i")
    with open(path) as file:
        assert SECRET not in file.read()
    assert store.remove("r.example")
    assert store.get("r.example") is None
    assert not store.remove("r.example")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho oops {directory} $MARKER; exit 3\n", "failed with status 3"),
        ("#!/bin/sh\necho '{{}}'\n", "without Username"),
        ("#!/bin/sh\necho 'no json'\n", "broken JSON"),
        ("#!/bin/sh\nexec cat /dev/zero\n", "answers more than"),
    ],
)
def test_helpers_that_fail_are_named_and_bounded(path, tmp_path, script, message):
    written(path, {"credsStore": "test"})
    store = CredentialStore(path, search_path=helper(tmp_path, script))
    with pytest.raises(HutchError, match=message):
        store.get("r.example")


def test_a_helper_that_hangs_is_ended(path, tmp_path, monkeypatch):
    monkeypatch.setattr("hutch.image.credentials._HELPER_TIMEOUT_S", 0.2)
    written(path, {"credsStore": "test"})
    store = CredentialStore(path, search_path=helper(tmp_path, "#!/bin/sh\nexec sleep 30\n"))
    begin = time.monotonic()
    with pytest.raises(HutchError, match="failed with status -9"):
        store.get("r.example")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("name", ["absent", "../../bin/sh", "a/b", "x y", "-x"])
def test_helpers_are_found_by_name_in_absolute_directories_only(path, tmp_path, name, monkeypatch):
    search = helper(tmp_path, HELPER)
    monkeypatch.chdir(tmp_path / "bin")
    written(path, {"credHelpers": {"r.example": name, "relative.example": "test"}})
    with pytest.raises(InvalidConfig):
        CredentialStore(path, search_path=search).get("r.example")
    with pytest.raises(InvalidConfig):
        CredentialStore(path, search_path=".:bin").get("relative.example")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ("bearer Realm=https://a/t , service=s", [("bearer", {"realm": "https://a/t", "service": "s"})]),
        (
            'Negotiate, Basic realm="a, b=\\"c\\"", Bearer realm="t"',
            [("negotiate", {}), ("basic", {"realm": 'a, b="c"'}), ("bearer", {"realm": "t"})],
        ),
        ("", []),
        ("=", []),
        ('Bearer realm="open', [("bearer", {})]),
    ],
)
def test_challenges(header, found):
    # After an unterminated quote whatever follows is no challenge either.
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges(header)][: len(found) or None] == found


@given(st.text(max_size=300))
def test_any_challenge_is_read_in_time(text):
    parse_challenges(text)


@pytest.mark.parametrize(
    "text", ['"' * 100_000, "a=" * 50_000, 'Bearer realm="' + "\\" * 100_000, ", " * 90_000, "a " * 90_000]
)
def test_no_challenge_takes_long(text):
    begin = time.perf_counter()
    parse_challenges(text)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors":[{"code":"DENIED","message":"Requested access is denied"}]}', "requested access is denied"),
        (b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', "toomanyrequests"),
        (b'{"details":"incorrect username or password"}', "incorrect username or password"),
        (b'{"errors":[{"message":"a\\u001b]0;title\\u0007\\nb"}]}', "a ]0;title b"),
        (b"<html>", ""),
        (b'{"errors":[1]}', ""),
        (b"[]", ""),
        (b'{"message":"' + b"x" * 9000 + b'"}', "x" * 300),
    ],
)
def test_what_a_registry_says_is_made_fit_for_a_terminal(body, said):
    assert error_message(body) == said


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("127.0.0.1.example:5000", False),
        ("127.1:5000", False),
        ("0.0.0.0:5000", False),
        ("10.0.0.1:5000", False),
        ("registry.lan:5000", True),
        ("registry.lan:5001", False),
        ("all.lan:1234", True),
    ],
)
def test_g1_what_may_be_plain(host, plain):
    assert Registries(insecure=frozenset({"registry.lan:5000", "all.lan"})).may_be_plain(host) is plain


@pytest.mark.parametrize("host", ["a:0", "a:65536", "a:x", "a:", "a:-1", "a:" + "9" * 30, "a:٣"])
def test_ports(host):
    with pytest.raises(InvalidArgument, match="port"):
        hosts.split_port(host)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.1.1", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "0.0.0.0", "x"],
)
def test_g3_private_addresses(address):
    assert not hosts.is_public(address)
    assert hosts.is_public("8.8.8.8")


def test_the_table_of_a_configuration_file():
    registries = Registries.from_table(
        {
            "default": "Registry.Example.org",
            "insecure": ["lan:5000"],
            "mirrors": {"docker.io": ["https://mirror.example/", "other.example:5000"]},
            "ca": {"r.example": "/etc/ca.pem"},
        }
    )
    assert registries.default == "registry.example.org"
    assert registries.api_hosts("docker.io") == ["mirror.example", "other.example:5000", "registry-1.docker.io"]
    assert registries.api_hosts("r.example") == ["r.example"]
    assert registries.certificates("r.example")[0] == ["/etc/ca.pem"]


@pytest.mark.parametrize(
    "table",
    [
        {"insecur": []},
        {"insecure": "all"},
        {"insecure": ["http://x"]},
        {"default": "a/b"},
        {"mirrors": []},
        {"mirrors": {"docker.io": "x"}},
        {"ca": {"x": "relative.pem"}},
    ],
)
def test_a_wrong_table_is_refused(table):
    with pytest.raises(InvalidConfig, match="registries"):
        Registries.from_table(table)


def test_certificates_are_found_where_docker_has_them(tmp_path):
    directory = tmp_path / "r.example:5000"
    directory.mkdir()
    for name in ("ca.crt", "client.cert", "client.key", "notes.txt"):
        (directory / name).touch()
    registries = Registries(certificate_directories=(str(tmp_path),))
    assert registries.certificates("r.example:5000") == (
        [f"{directory}/ca.crt"],
        [(f"{directory}/client.cert", f"{directory}/client.key")],
    )
    assert registries.certificates("other") == ([], [])
