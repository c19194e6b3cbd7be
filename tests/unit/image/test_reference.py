"""Docker's grammar of image names."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import InvalidReference
from hutch.image.reference import Reference

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
        ("library/alpine", "docker.io/library/alpine", "alpine"),
        ("user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Example/app", "Example/app", "Example/app"),
        (f"alpine@{SHA}", f"docker.io/library/alpine@{SHA}", f"alpine@{SHA}"),
        (f"alpine:3@{SHA}", f"docker.io/library/alpine:3@{SHA}", f"alpine:3@{SHA}"),
        ("a__b/c.d--e", "docker.io/a__b/c.d--e", "a__b/c.d--e"),
        ("docker.io/localhost/app", "docker.io/localhost/app", "docker.io/localhost/app"),
        ("xn--n3h.com/app", "xn--n3h.com/app", "xn--n3h.com/app"),
    ],
)
def test_names_are_normalised(text, whole, familiar):
    reference = Reference.parse(text)
    assert str(reference) == whole
    assert reference.familiar() == familiar
    assert Reference.parse(whole) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "alpine ",
        "alpine\n",
        "alpine:",
        ":latest",
        "@" + SHA,
        "-alpine",
        "alpine-",
        "a..b",
        "a___b",
        "a//b",
        "/a",
        "a/",
        "https://example.org/a",
        "user@example.org/a",
        "alpine:.tag",
        "alpine:" + "t" * 129,
        "alpine@sha256:" + "0" * 63,
        "alpine@sha256:" + "A" * 64,
        "alpine@sha256:../../" + "0" * 58,
        "alpine@md5:" + "0" * 32,
        "0" * 64,
        "a" * 256,
        "example.org/" + "a" * 250,
        "example.org:port/a",
        "-example.org/a",
        "example.org:/a",
        "ünïcode",
        "alpine:tág",
        "a\0b",
        "repo/../../etc",
    ],
)
def test_g11_what_is_not_in_the_grammar_is_refused(text):
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_upper_case_is_named_as_the_reason():
    with pytest.raises(InvalidReference, match="must be lower case"):
        Reference.parse("docker/Alpine")


def test_the_default_tag_and_registry():
    assert str(Reference.parse("alpine").with_default_tag()) == "docker.io/library/alpine:latest"
    assert Reference.parse(f"alpine@{SHA}").with_default_tag().tag is None
    assert str(Reference.parse("app", default_domain="registry.example.org")) == "registry.example.org/app"
    assert Reference.parse("alpine:1").with_digest(SHA).tag is None
    with pytest.raises(InvalidReference):
        Reference.parse("alpine").with_tag("../x")


@given(st.text(alphabet=string.ascii_letters + string.digits + "._-/:@[]\n\0 é", max_size=80))
def test_g11_whatever_is_accepted_is_safe_and_reads_back_the_same(text):
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert reference.path == reference.path.lower()
    assert ".." not in reference.path.split("/")
    assert str(reference).isascii()
    assert str(reference).isprintable()


@pytest.mark.parametrize("text", ["a-" * 127, "a." * 127 + "!", "a" * 254 + "_", "a/" * 127 + "A", "-" * 250])
def test_no_name_makes_the_grammar_backtrack(text):
    begin = time.perf_counter()
    with pytest.raises(InvalidReference):
        Reference.parse(text)
    assert time.perf_counter() - begin < 0.1
