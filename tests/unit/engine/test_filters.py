from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from hutch.engine import filters
from hutch.engine.container_filters import KEYS, container_filter
from hutch.errors import ContainerNotFound, ImageNotFound, InvalidArgument, NotSupported


def container(name, created, **more):
    row = {
        "id": name[0] * 64, "name": name, "created": f"2026-01-0{created}T00:00:00.000000000Z", "status": "running",
        "health": "", "exit_code": -1, "image": "debian:bookworm", "image_id": "sha256:aa", "chain_ids": ["c1", "c2"],
        "labels": {}, "ports": {}, "volumes": set(), "networks": ("none",),
    }  # fmt: skip
    return SimpleNamespace(**{**row, **more})


ROWS = [
    container("able", 1, labels={"tier": "web", "empty": ""}, health="healthy", volumes={"data", "/srv"}),
    container("baker", 2, status="exited", exit_code=3, image="sha256:bb", image_id="sha256:bb", chain_ids=["c1"]),
    container("charlie", 3, status="exited", exit_code=0, labels={"tier": "db", "x": "1"}, networks=("front", "back")),
    container("delta", 4, status="paused", health="starting",
              ports={"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": None}),
    container("echo", 5, status="created", chain_ids=["c1", "c2", "c3"], image="mine", image_id="sha256:ee"),
    container("able2", 6, status="restarting", exit_code=3),
]  # fmt: skip
IMAGES = {"debian": ["c1", "c2"], "base": ["c1"], "mine": ["c1", "c2", "c3"]}


def find(text):
    for row in ROWS:
        if text in (row.name, row.id):
            return row
    raise ContainerNotFound(f"no such container: {text}")


def layers(text):
    if text not in IMAGES:
        raise ImageNotFound(f"no such image: {text}")
    return IMAGES[text]


def compiled(*given):
    return container_filter(given, find=find, layers=layers)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("", "able baker charlie delta echo able2"),
        ("name=able", "able able2"),
        ("name=^able$", "able"),
        ("name=^/able$", "able"),
        ("name=a name=l name=zz", "able baker charlie delta able2"),
        (" NAME = able ", "able able2"),
        ("id=aaaa", "able able2"),
        (f"id={'c' * 64}", "charlie"),
        ("label=tier", "able charlie"),
        ("label=tier=web", "able"),
        ("label=tier label=x", "charlie"),
        ("label=empty", "able"),
        ("label=empty=", "able"),
        ("label=nope", ""),
        ("status=exited", "baker charlie"),
        ("status=exited status=created", "baker charlie echo"),
        ("status=paused", "delta"),
        ("exited=3", "baker"),
        ("exited=0 exited=3", "baker charlie"),
        ("health=healthy", "able"),
        ("health=none", "baker charlie echo able2"),
        ("health=starting health=healthy", "able delta"),
        ("before=charlie", "able baker"),
        ("since=charlie", "delta echo able2"),
        ("since=able before=delta", "baker charlie"),
        ("ancestor=debian", "able charlie delta echo able2"),
        ("ancestor=base", "able baker charlie delta echo able2"),
        ("ancestor=mine", "echo"),
        ("ancestor=sha256:bb", "baker"),
        ("ancestor=gone", ""),
        ("volume=data", "able"),
        ("volume=/srv/", "able"),
        ("network=back", "charlie"),
        ("network=none", "able baker delta echo able2"),
        ("publish=8080", "delta"),
        ("publish=80", ""),
        ("publish=8000-8100/tcp", "delta"),
        ("publish=8080/udp", ""),
        ("expose=80", "delta"),
        ("expose=53/udp", "delta"),
        ("expose=53", ""),
        ("publish=1 expose=80", "delta"),
        ("name=a status=exited exited=0", "charlie"),
    ],
)
def test_container_filters(given, names):
    words = [given] if given.startswith(" ") else given.split()
    matches = compiled(*words)
    assert [row.name for row in ROWS if matches(row)] == names.split()


def test_a_status_asks_for_containers_that_do_not_run():
    assert compiled("status=exited").everything
    assert not compiled("exited=0", "name=x").everything


@pytest.mark.parametrize(
    "given",
    ["nope=1", "name", "status=up", "health=ill", "exited=x", "exited=", "publish=x", "publish=0", "publish=70000",
     "publish=9-5", "expose=80/icmp", "name=(", "until=1h"],
)  # fmt: skip
def test_what_is_no_filter_is_refused(given):
    with pytest.raises(InvalidArgument, match="invalid filter"):
        compiled(given)


@pytest.mark.parametrize("given", ["is-task=true", "isolation=hyperv", "Isolation = process"])
def test_filters_without_meaning_say_so(given):
    with pytest.raises(NotSupported, match="is not supported: "):
        compiled(given)


def test_before_and_since_name_a_container():
    with pytest.raises(ContainerNotFound):
        compiled("before=nobody")


def test_an_unknown_filter_names_the_known_ones():
    with pytest.raises(InvalidArgument) as caught:
        compiled("nope=1")
    assert caught.value.hint == f"filters are {', '.join(KEYS)}"


def test_until_takes_durations_and_moments():
    hour_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    assert filters.before("30m")(hour_ago)
    assert not filters.before("2h")(hour_ago)
    assert filters.before("2026-01-02T00:00:00Z")("2026-01-01T23:59:59.5Z")
    assert not filters.before("1767225600")("2026-01-02T00:00:00Z")
    assert not filters.before("1h")("")
    with pytest.raises(InvalidArgument):
        filters.before("soon")
