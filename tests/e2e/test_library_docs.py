"""Every example of docs/user/library.md, in order, as one program."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

import hutch
from hutch.engine.options import RunOptions
from tests.support.host import requires

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user" / "library.md"
README = PAGE.parents[2] / "README.md"

pytestmark = requires("root")


def examples(page: Path) -> list[tuple[int, str]]:
    """The Python blocks, with the number of the line before each."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: found.start()].count("\n") + 1, found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("page", [PAGE, README], ids=["library.md", "README.md"])
def test_the_examples_work(lib, monkeypatch, page):
    lib.engine.images.tag(lib.image, "debian", "bookworm")
    monkeypatch.setattr("hutch.engine.engine._default_root", lambda: lib.engine.root)
    monkeypatch.setattr("hutch.engine.engine._default_state", lambda _root: lib.engine.state)
    monkeypatch.setattr(RunOptions, "cgroup_parent", lib.cgroup)
    names: dict[str, object] = {"hutch": hutch}
    blocks = examples(page)
    assert blocks
    for line, block in blocks:
        exec(compile("\n" * line + block, str(page), "exec"), names)
        if test := names.pop("test_it", None):
            with ExitStack() as kept:
                test(lambda *given, kept=kept: kept.enter_context(lib.engine.containers.run(*given, detach=True)))
    assert lib.left() == []
    for volume in lib.engine.volumes.list():
        volume.remove()
