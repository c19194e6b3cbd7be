"""`hutch system check` and `hutch system recover`."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import plain, warn
from hutch.engine.checks.run import findings
from hutch.engine.engine import Engine
from hutch.engine.recovery import recover
from hutch.errors import HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.checks.finding import Finding


def _check(given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    engine.prepare_directories()
    found = left = 0
    for finding in findings(engine):
        found += 1
        print(plain(finding.text), flush=True)
        if not given["repair"]:
            left += 1
            if finding.hint:
                print(plain(f"  hint: {finding.hint}"))
        elif not _mended(finding):
            left += 1
    if given["repair"]:
        count = engine.snapshots.sweep()
        engine.volumes.sweep()
        if count:
            print(f"{count} {'thing' if count == 1 else 'things'} that killed processes left half done: removed")
    if not found:
        print("no problems found")
    elif given["repair"]:
        print(f"{found - left} of {found} problems mended")
    else:
        print(
            f"{found} {'problem' if found == 1 else 'problems'} found; 'hutch system check --repair' mends what can be"
        )
    return 1 if left else 0


def _mended(finding: Finding) -> bool:
    if finding.mend is None:
        print(plain(f"  not mended{f': {finding.hint}' if finding.hint else ''}"))
        return False
    try:
        print(plain(f"  {finding.mend()}"), flush=True)
    except (HutchError, OSError) as error:
        print(plain(f"  not mended: {error}"), flush=True)
        return False
    return True


def _recover(_given: dict[str, Any], _arguments: list[str], general: dict[str, Any]) -> int:
    done = recover(Engine(general["root"], general["state"]))
    for name in done.ended:
        print(f"{name}: had ended")
    for text in done.freed:
        print(plain(text))
    for name in done.started:
        print(f"{name}: started")
    for text in done.problems:
        warn(text)
    return 1 if done.problems else 0


COMMAND = Command(
    "system check",
    arguments="",
    summary="Find what is damaged or left over, in the store, the images, the volumes and the state",
    flags=(Flag("repair", "", "mend what can be mended without losing anything, and say what was done"),),
    run=_check,
    example="hutch system check --repair",
    most=0,
)
RECOVER = Command(
    "system recover",
    arguments="",
    summary="After a boot or a crash: say how containers ended, free what they had, start what is to run",
    flags=(),
    run=_recover,
    example="hutch system recover",
    most=0,
)
