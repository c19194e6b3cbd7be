"""Fixtures for tests that use containers; pytest finds them once hutch is installed.

    def test_it(container):
        c = container("debian:bookworm", "sleep inf")
        assert c.exec("true").exit_code == 0

    hutch_engine    one engine for the session, with a private root that is removed at its end
    container       makes containers that are gone after the test, whatever happens in it, and if pytest is killed

`hutch_root = user` in pytest's configuration, or `--hutch-root=user`, takes the user's own store instead, whose images
need not be pulled again; any other value is the path of a root to keep.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import hutch

PRIVATE, USER = "private", "user"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option and its counterpart in the configuration."""
    text = f"where containers live: {PRIVATE} (a temporary root, the default), {USER} (the user's), or a path"
    parser.addini("hutch_root", text, default=PRIVATE)
    parser.getgroup("hutch").addoption("--hutch-root", default=None, metavar="ROOT", help=text)


@pytest.fixture(scope="session")
def hutch_engine(request: pytest.FixtureRequest) -> Iterator[hutch.Engine]:
    """One engine for the session."""
    root = request.config.getoption("--hutch-root") or request.config.getini("hutch_root")
    if root == USER:
        with hutch.Engine() as engine:
            yield engine
        return
    if root != PRIVATE:
        with hutch.Engine(os.path.abspath(root)) as engine:
            yield engine
        return
    # Not below pytest's own directories, whose paths may be long and which it keeps and removes as it likes.
    base = tempfile.mkdtemp(prefix="hutch-pytest-")
    try:
        with hutch.Engine(f"{base}/data", f"{base}/state") as engine:
            try:
                yield engine
            finally:
                engine.destroy()
    finally:
        os.rmdir(base)


@pytest.fixture
def container(hutch_engine: hutch.Engine) -> Iterator[Callable[..., hutch.Container]]:
    """Makes containers, with the arguments of `containers.run`; they are killed and removed after the test."""
    with ExitStack() as kept:

        def run(image: str, command: Any = None, **options: Any) -> hutch.Container:
            made = hutch_engine.containers.run(image, command, detach=True, **options)
            return kept.enter_context(made)

        yield run
