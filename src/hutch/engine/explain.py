"""`--explain`: tell each step of the kernel's as it is taken, with the shell command that does the same."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hutch.runtime.steps import Step
    from hutch.spec.runtime import Mount, Spec, State


class Narrator:
    """Says numbered steps.

    Args:
        write: gets the text of each step.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._count = 0

    def plan(self, spec: Spec, bundle: str, root_mounts: Sequence[Mount]) -> None:
        """Every step that create would take, from the same plan that it executes."""
        from hutch.linux import caps
        from hutch.linux.proc import Proc
        from hutch.runtime import init
        from hutch.runtime.plan import make_plan
        from hutch.runtime.steps import INIT, Setup

        privileged = os.geteuid() == 0 and bool(caps.get().effective >> caps.BITS["CAP_SYS_ADMIN"] & 1)
        plan = make_plan(spec, bundle=bundle, container_id="x", privileged=privileged, root_mounts=root_mounts)
        for actor, step in plan.steps():
            self.step(actor, step)
        state: State = {"ociVersion": spec["ociVersion"], "id": "x", "status": "creating", "bundle": bundle}
        setup = Setup(spec, container_id="x", bundle=bundle, rootfs=spec["root"]["path"], proc=Proc.new(), state=state)
        setup.privileged = privileged
        options = init.Options((0, 1, 2), 0, init.compiled_filter(spec), explain=False)
        for step in init.final_steps(setup, options):
            self.step(INIT, step)
        setup.proc.close()

    def step(self, actor: str, step: Step) -> None:
        """One step, as it is about to run or would run."""
        self._count += 1
        text = f"{self._count:3} {actor:6} {step.title}\n           {step.describe()}\n"
        shell = step.shell()
        if shell:
            text += f"           $ {shell}\n"
        self._write(text.encode("utf-8", "backslashreplace"))
