"""How the program shares the machine: scheduling policy, I/O priority, CPUs, memory nodes, personality.

The same for create and exec. What may not be imported inside is imported where a step is planned.
OCI runtime-spec config.md#process, config-linux.md.
"""

from __future__ import annotations

import errno

from hutch.errors import NotSupported
from hutch.linux import process
from hutch.runtime.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.runtime.steps import Setup
    from hutch.spec.runtime import Linux, Process


def scheduling(spec_process: Process) -> list[Step]:
    """Scheduling policy and I/O priority."""
    steps = []
    scheduler = spec_process.get("scheduler")
    if scheduler:
        policy = scheduler["policy"]
        flags = 0
        for name in scheduler.get("flags") or []:
            if name not in process.SCHED_FLAGS:
                raise NotSupported(f"process.scheduler.flags: {name}: unknown")
            flags |= process.SCHED_FLAGS[name]
        wanted = {
            "nice": scheduler.get("nice", 0),
            "priority": scheduler.get("priority", 0),
            "runtime_nanos": scheduler.get("runtime", 0),
            "deadline_nanos": scheduler.get("deadline", 0),
            "period_nanos": scheduler.get("period", 0),
        }

        def schedule(_: Setup) -> None:
            process.set_scheduler(policy, flags=flags, **wanted)

        steps.append(Step("set scheduler", f"sched_setattr({policy}, {wanted})", schedule, command="chrt …"))
    priority = spec_process.get("ioPriority")
    if priority:
        io_class, level = priority["class"], priority.get("priority", 0)

        def prioritise(_: Setup) -> None:
            process.ioprio_set(io_class, level)

        steps.append(Step("set i/o priority", f"ioprio_set({io_class}, {level})", prioritise, command="ionice …"))
    return steps


def affinity(cpus: str) -> Step:
    """Run on these CPUs only: one half of execCPUAffinity."""
    from hutch.runtime.config import parse_numbers

    wanted = parse_numbers(cpus, "process.execCPUAffinity", "CPUs")
    call = f"sched_setaffinity(0, {{{cpus}}})"
    return Step(
        "set cpu affinity", call, lambda _: process.sched_setaffinity(0, wanted), command=f"taskset -c {cpus} …"
    )


def personality(domain: str) -> Step:
    """linux.personality."""
    persona = {"LINUX": process.PER_LINUX, "LINUX32": process.PER_LINUX32}[domain]
    call = f"personality(PER_{domain})"
    return Step("set personality", call, lambda _: _set_personality(persona), command="setarch linux32 …")


def _set_personality(persona: int) -> None:
    process.personality(persona)


def memory_policy(linux: Linux) -> list[Step]:
    """linux.memoryPolicy. OCI runtime-spec config-linux.md#memory-policy."""
    policy = linux.get("memoryPolicy")
    if not policy:
        return []
    from hutch.linux import mempolicy
    from hutch.runtime.config import parse_numbers

    mode, text, flags = policy["mode"], policy.get("nodes") or "", policy.get("flags") or []
    nodes = parse_numbers(text, "linux.memoryPolicy.nodes", "nodes") if text else set()
    number = mempolicy.MODES[mode]
    for flag in flags:
        number |= mempolicy.FLAGS[flag]

    def action(_: Setup) -> None:
        try:
            mempolicy.set_mempolicy(number, nodes)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise NotSupported("linux.memoryPolicy: this kernel is built without NUMA") from None
            raise OSError(error.errno, error.strerror, f"{'|'.join((mode, *flags))} {text}".rstrip()) from None

    call = f"set_mempolicy({'|'.join((mode, *flags))}, {{{text}}})"
    return [Step("set memory policy", call, action, command="numactl …")]
