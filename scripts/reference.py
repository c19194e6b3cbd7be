"""The pages of docs/user/commands, from the tables that the commands themselves are parsed by."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compared import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.cli.command import Command
    from hutch.cli.flags import Flag

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "docs/user/commands"
_NOTE = "Made by `make docs` from the command itself."


def pages() -> dict[str, str]:
    """File name → text of every page."""
    from hutch.cli.main import ALIASES, COMMANDS, load

    others: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        others.setdefault(name, []).append(alias)
    found = {f"{_file(name)}.md": _page(load(name), others.get(name, [])) for name in COMMANDS}
    return {**found, "hutch-oci.md": _oci(), "README.md": _index(COMMANDS, others)}


def outdated() -> list[Path]:
    """Pages that are not as they would be made now, or whose command is gone."""
    made = pages()
    wrong = [FOLDER / name for name, text in made.items() if _read(FOLDER / name) != text]
    return wrong + [path for path in FOLDER.glob("*.md") if path.name not in made]


def write() -> list[Path]:
    """Make what is outdated anew; which pages that were."""
    made, wrong = pages(), outdated()
    FOLDER.mkdir(exist_ok=True)
    for path in wrong:
        if path.name in made:
            path.write_text(made[path.name], encoding="utf-8")
        else:
            path.unlink()
    return wrong


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _file(name: str) -> str:
    return name.replace(" ", "-")


def _page(command: Command, aliases: list[str]) -> str:
    parts = [f"# hutch {command.name}", f"{command.summary}.", f"```text\n{command.usage}\n```"]
    if aliases:
        parts.append(f"Also {', '.join(f'`hutch {name}`' for name in sorted(aliases))}.")
    parts += ["## Example", f"```sh\n{command.example}\n```", "## Options", _options(command.flags)]
    return "\n\n".join([*parts, _NOTE]) + "\n"


def _options(flags: Sequence[Flag]) -> str:
    from hutch.cli.flags import HELP

    rows = []
    for flag in sorted((*flags, HELP), key=lambda flag: flag.name):
        name = f"`-{flag.short}`, `--{flag.name}" if flag.short else f"`--{flag.name}"
        rows.append((f"{name} {flag.kind}`" if flag.kind else f"{name}`", flag.text))
    return table(("option", ""), rows)


def _index(commands: dict[str, tuple[str, str]], others: dict[str, list[str]]) -> str:
    from hutch.cli.main import global_flags

    rows = []
    for name in sorted(commands):
        also = ", ".join(f"`{other}`" for other in sorted(others.get(name, [])))
        rows.append((f"[`{name}`]({_file(name)}.md)", commands[name][1], also))
    return (
        "\n\n".join(
            [
                "# Commands",
                "```text\nhutch [OPTIONS] COMMAND [ARG...]\n```",
                table(("command", "", "also"), rows),
                "The OCI runtime is a program of its own: [`hutch-oci`](hutch-oci.md).",
                "## Options before the command",
                _options(global_flags()),
                _NOTE,
            ]
        )
        + "\n"
    )


def _oci() -> str:
    argv = [sys.executable, "-ISE", str(CHECKOUT / "scripts/hutch-oci"), "--help"]
    # Wide enough not to be folded, and never the terminal's own width.
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})
    return "\n\n".join(["# hutch-oci", f"```text\n{done.stdout.strip()}\n```", _NOTE]) + "\n"
