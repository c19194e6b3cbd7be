"""Compile a `LinuxSeccomp` profile to the classic BPF program that the kernel runs at every system call.

What a profile means is what libseccomp and runc make of it:

- a rule without arguments settles its system call, whatever other rules say of it; otherwise the first rule whose
  arguments all match does; otherwise the default action;
- a rule that names one argument several times is as many rules (runc's reading of old profiles);
- a rule with the default action adds nothing; names that no architecture here knows are ignored;
- system calls newer than any the profile names are answered with ENOSYS when the default refuses, so that programs
  fall back to the older call instead of failing.

Differently from them, arguments that the kernel cuts to 32 bits are compared as 32 bits, and a system call of an
architecture that the profile does not list fails with EPERM if the default action is an errno (else it kills).

The program checks the architecture, then finds the number by binary search over runs of numbers with one outcome.
Needs no library. Nothing is loaded here: see `hutch.linux.seccomp`.
"""

from __future__ import annotations

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import seccomp as kernel
from hutch.runtime import classic_bpf, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.spec.runtime import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

    Condition = tuple[int, str, int, int]  # argument's index, operator, value, second value
    Clause = tuple[tuple[Condition, ...], int]  # all conditions; what to return then
    Outcome = int | tuple[Clause, ...]  # what to return, or clauses to try in order

EPERM, ENOSYS, _MAX_ERRNO = 1, 38, 4095

ACTIONS: dict[str, int] = {
    "SCMP_ACT_KILL": kernel.RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": kernel.RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": kernel.RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": kernel.RET_TRAP,
    "SCMP_ACT_ERRNO": kernel.RET_ERRNO,
    "SCMP_ACT_TRACE": kernel.RET_TRACE,
    "SCMP_ACT_ALLOW": kernel.RET_ALLOW,
    "SCMP_ACT_LOG": kernel.RET_LOG,
    "SCMP_ACT_NOTIFY": kernel.RET_USER_NOTIF,
}
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
FLAGS: dict[str, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": kernel.FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": kernel.FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": kernel.FILTER_FLAG_WAIT_KILLABLE_RECV,
}
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

# The specification's architectures: ours with (table, AUDIT_ARCH_…), and those a profile may list for other machines.
ARCHITECTURES: dict[str, tuple[str, int]] = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E),
    "SCMP_ARCH_X86": ("x86", 0x40000003),
    "SCMP_ARCH_X32": ("x32", 0xC000003E),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7),
    "SCMP_ARCH_ARM": ("arm", 0x40000028),
}
_ELSEWHERE = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        "LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
        "S390 S390X SH SHEB PARISC PARISC64 RISCV64"
    ).split()
)
# uname's machine → its own architecture, and those its processor also runs
_MACHINES: dict[str, tuple[str, ...]] = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

# i386 reaches sockets and System V IPC by one call each as well, with the operation's number first (net/socket.c,
# ipc/syscall.c). A rule on the plain call covers that way too; its arguments are behind a pointer no filter can read.
_SOCKETCALL = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
    "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
).split()
_IPC = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
    "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}  # fmt: skip


class Program:
    """A compiled filter.

    Attributes:
        code: struct sock_filter after struct sock_filter.
        flags: SECCOMP_FILTER_FLAG_* to load it with, the listener's included.
        listener: whether loading it gives a listener's descriptor.
        unknown: names in the profile that no architecture of this machine knows; they were ignored.
    """

    __slots__ = ("code", "flags", "listener", "unknown")

    def __init__(self, code: bytes, flags: int, listener: bool, unknown: tuple[str, ...]) -> None:
        self.code = code
        self.flags = flags
        self.listener = listener
        self.unknown = unknown


def compile_profile(profile: LinuxSeccomp, *, architecture: str) -> Program:
    """Compile a profile for one machine.

    Args:
        profile: the specification's ``linux.seccomp``; untrusted.
        architecture: the machine, as uname says: ``x86_64`` or ``aarch64``.

    Returns:
        The program, to be loaded with its flags.

    Raises:
        InvalidConfig: an unknown action, operator, architecture or flag, an argument that does not exist, or a
            filter longer than the kernel takes.
        NotSupported: no system call table for this machine.

    OCI runtime-spec config-linux.md#seccomp.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)
    if machine not in _MACHINES:
        raise NotSupported(f"seccomp: no system call table for {architecture}")
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"), "default")
    if profile["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise InvalidConfig("seccomp: SCMP_ACT_NOTIFY cannot be the default action: the listener could not be sent")
    rules = profile.get("syscalls") or []
    architectures = _architectures(profile.get("architectures") or [], machine)
    code = classic_bpf.Assembler()
    sections = [(name, _section(code, name, rules, default, _newer(profile, default))) for name in architectures]
    foreign = kernel.RET_ERRNO | EPERM if default & ~kernel.RET_DATA == kernel.RET_ERRNO else kernel.RET_KILL_PROCESS
    _dispatch(code, dict(sections), default, foreign)
    flags, listener = _flags(profile, rules)
    return Program(code.bytes(), flags, listener, _unknown(rules, architectures))


def _action(name: str, errno_ret: int | None, where: str) -> int:
    """Return the SECCOMP_RET_ value of an action."""
    if name not in ACTIONS:
        raise InvalidConfig(f"seccomp: {where}: unknown action {name[:60]!r}")
    if name not in {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"}:
        if errno_ret is not None:
            raise InvalidConfig(f"seccomp: {where}: {name} takes no errnoRet")
        return ACTIONS[name]
    number = EPERM if errno_ret is None else errno_ret
    limit = _MAX_ERRNO if name == "SCMP_ACT_ERRNO" else kernel.RET_DATA
    if not 0 <= number <= limit:
        raise InvalidConfig(f"seccomp: {where}: errnoRet {number}: must be between 0 and {limit}")
    return ACTIONS[name] | number


def _architectures(names: Sequence[str], machine: str) -> list[str]:
    """Return the architectures to filter: the machine's own always, others if listed, foreign ones never."""
    for name in names:
        if name not in ARCHITECTURES and name not in _ELSEWHERE:
            raise InvalidConfig(f"seccomp: unknown architecture {name[:60]!r}")
    own, *others = _MACHINES[machine]
    return [own, *(name for name in others if name in names)]


def _flags(profile: LinuxSeccomp, rules: Sequence[LinuxSyscall]) -> tuple[int, bool]:
    names = profile.get("flags")
    flags = 0
    for name in ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if names is None else names:
        if name not in FLAGS:
            raise InvalidConfig(f"seccomp: unknown flag {name[:60]!r}")
        flags |= FLAGS[name]
    listener = any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in rules)
    if listener:
        flags |= kernel.FILTER_FLAG_NEW_LISTENER
        if flags & kernel.FILTER_FLAG_TSYNC:
            flags |= kernel.FILTER_FLAG_TSYNC_ESRCH  # the two results of loading would be one number otherwise
    elif flags & kernel.FILTER_FLAG_WAIT_KILLABLE_RECV:
        flags &= ~kernel.FILTER_FLAG_WAIT_KILLABLE_RECV  # the kernel takes it for listeners only, EINVAL else
    return flags, listener


def _unknown(rules: Sequence[LinuxSyscall], architectures: Sequence[str]) -> tuple[str, ...]:
    tables = [syscalls.numbers(ARCHITECTURES[name][0]) for name in architectures]
    names = (name for rule in rules for name in rule["names"])
    return tuple(dict.fromkeys(name for name in names if not any(name in table for table in tables)))


def _newer(profile: LinuxSeccomp, default: int) -> int | None:
    """Return the answer to calls newer than the profile, or None where the default serves for them too.

    A profile that is older than the program it confines refuses calls it never heard of; programs take ENOSYS for
    "not there, use the older call", and EPERM for a verdict.
    """
    if profile["defaultAction"] in _PERMISSIVE or default == kernel.RET_ERRNO | ENOSYS:
        return None
    return kernel.RET_ERRNO | ENOSYS


# --- from rules to outcomes -------------------------------------------------------------------------------------


def _outcomes(name: str, rules: Sequence[LinuxSyscall], default: int) -> tuple[dict[int, Outcome], int]:
    """Return number → outcome for one architecture, and the largest number that the rules name."""
    table = syscalls.numbers(ARCHITECTURES[name][0])
    outcomes: dict[int, Outcome] = {}
    newest = -1
    for rule in rules:
        action = _action(rule["action"], rule.get("errnoRet"), ", ".join(rule["names"])[:60])
        clauses = _clauses(rule, action)
        for syscall in rule["names"]:
            number = table.get(syscall)
            if syscall == "write" and rule["action"] == "SCMP_ACT_NOTIFY":
                raise InvalidConfig("seccomp: SCMP_ACT_NOTIFY cannot be used for write: the listener is sent with it")
            if number is not None and number < 0xF0000:  # ARM's private calls say nothing about how new a kernel is
                newest = max(newest, number)
            if action == default:
                continue
            if number is not None:
                _add(outcomes, number, _for_syscall(clauses, syscall, ARCHITECTURES[name][0]))
            if name == "SCMP_ARCH_X86" and not rule.get("args"):
                _add_multiplexed(outcomes, table, syscall, action)
    return outcomes, newest


def _clauses(rule: LinuxSyscall, action: int) -> tuple[Clause, ...]:
    """Return the rule's clauses; one without conditions if it has no arguments."""
    conditions = [_condition(argument) for argument in rule.get("args") or ()]
    indexes = [condition[0] for condition in conditions]
    if len(set(indexes)) != len(indexes):
        return tuple(((condition,), action) for condition in conditions)
    return ((tuple(conditions), action),)


def _condition(argument: LinuxSeccompArg) -> Condition:
    index, op = argument["index"], argument["op"]
    value, value_two = argument["value"], argument.get("valueTwo") or 0
    if not 0 <= index <= 5:
        raise InvalidConfig(f"seccomp: a system call has no argument {index}")
    if op not in OPERATORS:
        raise InvalidConfig(f"seccomp: unknown operator {op[:60]!r}")
    if not 0 <= value < 1 << 64 or not 0 <= value_two < 1 << 64:
        raise InvalidConfig(f"seccomp: value {value} or {value_two}: not a 64-bit number")
    return index, op, value, value_two


def _for_syscall(clauses: tuple[Clause, ...], syscall: str, table: str) -> Outcome:
    """Mark each condition with its width, by an operator ending in ``/32``; no conditions are a plain outcome."""
    if not clauses[0][0]:
        return clauses[0][1]
    narrow = table in {"x86", "arm"}
    return tuple(
        (
            tuple(
                (index, op + "/32" if narrow or syscalls.is_int_argument(syscall, index) else op, value, value_two)
                for index, op, value, value_two in conditions
            ),
            action,
        )
        for conditions, action in clauses
    )


def _add(outcomes: dict[int, Outcome], number: int, new: Outcome) -> None:
    """Put a rule beside those there are: one without conditions wins, else they are tried in order."""
    old = outcomes.get(number)
    if isinstance(old, int):
        return
    if old is None or isinstance(new, int):
        outcomes[number] = new
    else:
        outcomes[number] = old + new


def _add_multiplexed(outcomes: dict[int, Outcome], table: dict[str, int], syscall: str, action: int) -> None:
    if syscall in _SOCKETCALL:
        call, operation = "socketcall", _SOCKETCALL.index(syscall) + 1
    elif syscall in _IPC:
        call, operation = "ipc", _IPC[syscall]
    else:
        return
    _add(outcomes, table[call], ((((0, "SCMP_CMP_EQ/32", operation, 0),), action),))


# --- from outcomes to code --------------------------------------------------------------------------------------


def _section(
    code: classic_bpf.Assembler, name: str, rules: Sequence[LinuxSyscall], default: int, newer: int | None
) -> int:
    """Emit the search for one architecture's numbers; returns its position, with the number loaded."""
    outcomes, newest = _outcomes(name, rules, default)
    runs: list[tuple[int, Outcome]] = [(0, default)]
    for number in sorted(outcomes):
        if runs[-1][0] == number:
            runs.pop()
        if not runs or runs[-1][1] != outcomes[number]:
            runs.append((number, outcomes[number]))
        runs.append((number + 1, default))
    merged: list[tuple[int, Outcome]] = []
    for first, outcome in runs:
        if not merged or merged[-1][1] != outcome:
            merged.append((first, outcome))
    if newer is not None and newest >= 0:
        private = [run for run in merged if run[0] > newest + 1]
        merged = [run for run in merged if run[0] <= newest]
        merged += [(newest + 1, newer), *private]
    return _search(code, merged, default)


def _search(code: classic_bpf.Assembler, runs: list[tuple[int, Outcome]], default: int) -> int:
    """Emit a balanced tree of comparisons over runs of numbers."""
    if len(runs) == 1:
        return _outcome(code, runs[0][1], default)
    middle = len(runs) // 2
    upper = _search(code, runs[middle:], default)
    lower = _search(code, runs[:middle], default)
    return code.at_least(runs[middle][0], upper, lower)


def _outcome(code: classic_bpf.Assembler, outcome: Outcome, default: int) -> int:
    if isinstance(outcome, int):
        return code.ret(outcome)
    otherwise = code.ret(default)
    for conditions, action in reversed(outcome):
        position = code.ret(action)
        for index, op, value, value_two in reversed(conditions):
            operator, narrow, _ = op.partition("/")
            condition = (index, operator, value, value_two)
            position = classic_bpf.compare_argument(code, condition, wide=not narrow, yes=position, no=otherwise)
        otherwise = position
    return otherwise


def _dispatch(code: classic_bpf.Assembler, sections: dict[str, int], default: int, foreign: int) -> None:
    """Emit the program's head: by architecture to its section. x32 is x86-64 with a bit set in the number."""
    otherwise = code.ret(foreign)
    for name in reversed(sections):
        if name == "SCMP_ARCH_X32":
            continue
        position = sections[name]
        if name == "SCMP_ARCH_X86_64":
            position = _x32(code, position, sections.get("SCMP_ARCH_X32"), default, otherwise)
        position = code.load(classic_bpf.NUMBER, position)
        otherwise = code.equal(ARCHITECTURES[name][1], position, otherwise)
    code.load(classic_bpf.ARCHITECTURE, otherwise)


def _x32(code: classic_bpf.Assembler, native: int, x32: int | None, default: int, foreign: int) -> int:
    """Split x86-64's numbers from x32's; -1, which is in x32's range, is nobody's call and gets the default."""
    if x32 is None:
        other = code.equal(0xFFFFFFFF, code.ret(default), foreign)
    else:
        other = code.bit_and(0xFFFFFFFF ^ syscalls.X32_BIT, x32)
    return code.at_least(syscalls.X32_BIT, other, native)
