"""Platforms and which image fits which."""

from __future__ import annotations

import pytest

from hutch.errors import InvalidArgument
from hutch.image import platform as platforms


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/ARM64", "linux/arm64"),
        ("linux/aarch64/v8", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("arm64", "linux/arm64"),
        ("windows/amd64", "windows/amd64"),
        ("linux", str(platforms.host())),
    ],
)
def test_platforms_are_normalised(text, normal):
    assert str(platforms.parse(text)) == normal


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "a/b/c/d", "linux/amd64\n", "linux/../x y", "plan10", "x" * 99]
)
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(InvalidArgument):
        platforms.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/arm64", ["linux/arm64/v8", "linux/arm/v7"], "linux/arm64"),
        ("linux/amd64", ["windows/amd64", "linux/386"], None),
    ],
)
def test_the_best_fitting_image_is_chosen(wanted, offered, chosen):
    parsed = [platforms.parse(text) for text in offered]
    best = platforms.choose(platforms.parse(wanted), [None, *parsed])
    assert (str(parsed[best - 1]) if best else None) == chosen
