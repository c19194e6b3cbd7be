"""The rules of the house (docs/design/house.md), as far as a program can check them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "src" / "hutch"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 600

# What hutch-oci may have imported when it starts; each costs (docs/adr/0001). Names with an underscore are C modules
# or the interpreter's own.
CHEAP = frozenset(
    "abc codecs ctypes encodings errno fcntl genericpath hutch io itertools gc marshal os posix posixpath resource "
    "select signal stat struct sys termios time types zipimport builtins array math".split()
)
START_UP = [
    "hutch.runtime.main",
    "hutch.runtime.create",
    "hutch.runtime.exec",
    *(f"hutch.linux.{path.stem}" for path in sorted((SOURCE / "linux").glob("*.py"))),
]

BANNED_CALLS = {
    "extract": "hutch.image.apply unpacks; tarfile's members climb out",
    "extractall": "hutch.image.apply unpacks; tarfile's members climb out",
    "unpack_archive": "hutch.image.apply unpacks; shutil follows links out of the tree",
    "mktemp": "races; make a file in the state directory",
    "rmtree": "crosses mounts; hutch.snapshot.removal does not",
    "getpwnam": "loads libraries that nsswitch.conf names; read passwd with limits",
    "expanduser": "asks NSS; use HOME",
}
STARTERS = {"run", "Popen", "call", "check_call", "check_output"}
BANNED_IMPORTS = {
    "pickle": "runs what it reads",
    "marshal": "trusts what it reads",
    "shelve": "is pickle",
    "yaml": "is not a dependency",
    "tarfile": "hutch.image.layer reads tar, strictly",
    "multiprocessing": "forks and pickles",
}
FORBIDDEN_WORDS = (
    "/work/main",
    "/work/shared",
    "/work/.library",
    "/opt/hutch",
    "claude",
    "anthropic",
    "language model",
)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""), node


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def has_annotations(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.AnnAssign) or getattr(node, "annotation", None) or getattr(node, "returns", None)
        for node in ast.walk(tree)
    )


def short(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_module_calls_what_follows_links_or_crosses_mounts() -> None:
    found = [
        f"{short(path)}:{node.lineno}: {name}: {BANNED_CALLS[name]}"
        for path in MODULES
        for name, node in calls(parse(path))
        if name in BANNED_CALLS
    ]
    assert found == []


def test_no_module_starts_a_shell() -> None:
    found = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        for name, node in calls(parse(path))
        if name in {"system", "popen", "getoutput", "getstatusoutput"}
        or (name in STARTERS and any(word.arg == "shell" and not _is_false(word.value) for word in node.keywords))
    ]
    assert found == []


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_no_module_imports_what_runs_what_it_reads() -> None:
    found = [
        f"{short(path)}: {name}: {BANNED_IMPORTS[name.partition('.')[0]]}"
        for path in MODULES
        for name in imports(parse(path))
        if name.partition(".")[0] in BANNED_IMPORTS
    ]
    assert found == []


def test_modules_are_short() -> None:
    long = {short(path): lines for path in MODULES if (lines := path.read_text().count("\n")) >= MAX_LINES}
    assert long == {}


def test_package_init_files_are_empty() -> None:
    full = [short(path) for path in SOURCE.glob("*/**/__init__.py") if path.read_bytes()]
    assert full == []


def test_annotations_are_strings_everywhere() -> None:
    found = [
        short(path)
        for path in MODULES
        if "from __future__ import annotations" not in path.read_text(encoding="utf-8") and has_annotations(parse(path))
    ]
    assert found == []


def tracked() -> list[Path]:
    """The files of the project, as git has them; all but caches where this is no checkout."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [CHECKOUT / name for name in done.stdout.split("\0") if name and (CHECKOUT / name).is_file()]
    return [path for part in ("src", "tests", "docs", "scripts") for path in (CHECKOUT / part).rglob("*.*")]


def test_no_file_names_the_place_it_was_written_in() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        text = path.read_bytes().decode(errors="replace").lower()
        found += [f"{short(path)}: {word}" for word in FORBIDDEN_WORDS if word in text]
    assert found == []


def loaded_by(module: str) -> set[str]:
    """The top-level names that importing `module` brings into an interpreter as hutch-oci starts it."""
    probe = (
        "import sys; sys.path.insert(0, sys.argv[1]); old = set(sys.modules); "
        "__import__(sys.argv[2]); print(*sorted(set(sys.modules) - old))"
    )
    argv = [sys.executable, "-I", "-S", "-c", probe, str(SOURCE.parent), module]
    out = subprocess.run(argv, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}).stdout
    return {name.partition(".")[0] for name in out.split() if not name.startswith("_")}


@pytest.mark.parametrize("module", [name for name in START_UP if not name.endswith("__init__")])
def test_the_start_up_path_imports_only_what_is_cheap(module: str) -> None:
    assert loaded_by(module) <= CHEAP


def test_the_import_budget_would_notice() -> None:
    assert not loaded_by("json") <= CHEAP
