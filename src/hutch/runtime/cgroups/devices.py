"""Device rules: the specification's ordered list, made into cgroup v1 writes.

The list is a history: each rule changes what the rules before it said, the last that matches counts. cgroup v1 keeps
no history but a set of exceptions to one default, so the list is played through here and the difference to what the
kernel holds is written: an update never closes a device that stays allowed.
"""

from __future__ import annotations

from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from hutch.spec.runtime import LinuxDeviceCgroup

    Key = tuple[str, int, int]  # type, major, minor; -1 is any

ANY = -1
MAX_RULES = 512  # the verifier's work grows with the square: 0.15 s for this many, refusal soon after 1000

# What the OCI specification promises every container, and mknod of what it may not open. Consoles: 5:1 and the pty
# majors. OCI runtime-spec config-linux.md#default-devices.
DEFAULT_RULES: tuple[LinuxDeviceCgroup, ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},  # null
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},  # zero
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},  # full
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},  # random
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},  # urandom
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},  # tty
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},  # console
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},  # ptmx
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},  # pts
)


class Rule:
    """One checked rule. `kind` is c, b or a (both); `access` a sorted subset of ``rwm``."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, allow: bool, kind: str, major: int, minor: int, access: str) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    @property
    def is_everything(self) -> bool:
        """Whether the rule sets the default and makes every rule before it moot."""
        return self.kind == "a"


def parse(rules: Sequence[LinuxDeviceCgroup]) -> list[Rule]:
    """Check the specification's rules.

    Raises:
        InvalidArgument: an unknown type or access, numbers out of range, or too many rules.
    """
    if len(rules) > MAX_RULES:
        raise InvalidArgument(f"device rules: {len(rules)} are more than the {MAX_RULES} allowed")
    return [_parse(rule) for rule in rules]


def _parse(rule: LinuxDeviceCgroup) -> Rule:
    kind = rule.get("type") or "a"
    if kind not in {"a", "b", "c"}:
        raise InvalidArgument(f"device rule: type {kind[:20]!r} is not one of a, b, c")
    access = "".join(sorted(set(rule.get("access") or "rwm"), key="rwm?".find))
    if not set(access) <= set("rwm"):
        raise InvalidArgument(f"device rule: access {access[:20]!r} is not made of r, w, m")
    numbers = []
    for name, bits in (("major", 12), ("minor", 20)):
        value = rule.get(name)
        number = ANY if value is None or (isinstance(value, int) and value < 0) else value
        if not isinstance(number, int) or number >= 1 << bits:
            raise InvalidArgument(f"device rule: {name} {number}: too large for a device number")
        numbers.append(number)
    if kind == "a" and (numbers != [ANY, ANY] or access != "rwm"):
        # The kernel ignores what follows "a"; a rule that means less than all must not become all.
        raise InvalidArgument("device rule: type a stands for every device and access; give b or c for less")
    return Rule(bool(rule["allow"]), kind, numbers[0], numbers[1], access)


def with_defaults(rules: Sequence[LinuxDeviceCgroup]) -> list[Rule]:
    """Return a container's whole list: everything denied, then its rules, then what every container is promised.

    The promised devices are left out where the container's own rules allow everything anyway (``--privileged``).
    """
    parsed = [Rule(False, "a", ANY, ANY, "rwm"), *parse(rules)]
    defaults = [rule for rule in parsed if rule.is_everything]
    return parsed if defaults[-1].allow else parsed + parse(DEFAULT_RULES)


# --- cgroup v1 --------------------------------------------------------------------------------------------------


class Exceptions:
    """What cgroup v1 holds: a default, and devices with the accesses for which the opposite is true."""

    __slots__ = ("access", "allow")

    def __init__(self, allow: bool) -> None:
        self.allow = allow
        self.access: dict[Key, frozenset[str]] = {}

    def apply(self, rule: Rule) -> None:
        """Play one rule.

        Raises:
            NotSupported: the rule takes a part out of a wildcard, which exceptions cannot say: the kernel would
                take it and do nothing.
        """
        if rule.is_everything:
            self.allow = rule.allow
            self.access.clear()
            return
        key = (rule.kind, rule.major, rule.minor)
        access = frozenset(rule.access)
        if rule.allow != self.allow:
            self.access[key] = self.access.get(key, frozenset()) | access
            return
        for other, held in self.access.items():
            if other != key and held & access and _overlap(other, key):
                raise NotSupported(
                    f"device rule {'allow' if rule.allow else 'deny'} {_text(key, access)}: cgroup v1 cannot make it "
                    f"an exception to {_text(other, held)}"
                )
        left = self.access.pop(key, frozenset()) - access
        if left:
            self.access[key] = left


def _overlap(one: Key, other: Key) -> bool:
    return one[0] == other[0] and all(a == b or ANY in {a, b} for a, b in zip(one[1:], other[1:], strict=True))


def _text(key: Key, access: frozenset[str]) -> str:
    kind, *numbers = key
    joined = ":".join("*" if number == ANY else str(number) for number in numbers)
    return f"{kind} {joined} {''.join(sorted(access, key='rwm'.find))}"


def read_v1(devices_list: str) -> Exceptions:
    """Parse devices.list, which lists what is allowed: ``a *:* rwm``, or the exceptions to denying.

    A cgroup that allows all but some shows only ``a *:* rwm``: what it denies is not readable. Its exceptions are
    then not known, and `transition` starts over.
    """
    held = Exceptions(allow=False)
    for line in devices_list.splitlines():
        kind, numbers, access = line.split()
        major, minor = (ANY if n == "*" else int(n) for n in numbers.split(":"))
        held.apply(Rule(True, kind, major, minor, access))
    return held


def transition(held: Exceptions, rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """Return the writes, (file, text), that take a cgroup from `held` to what `rules` say.

    Raises:
        NotSupported: see `Exceptions.apply`.
    """
    wanted = Exceptions(allow=held.allow)
    wanted.access.update(held.access)
    for rule in rules:
        wanted.apply(rule)
    writes: list[tuple[str, str]] = []
    start = held
    if wanted.allow or held.allow:
        writes.append(("devices.allow" if wanted.allow else "devices.deny", "a"))
        start = Exceptions(wanted.allow)
    add, take = ("devices.deny", "devices.allow") if wanted.allow else ("devices.allow", "devices.deny")
    for key, access in wanted.access.items():
        more = access - start.access.get(key, frozenset())
        if more:
            writes.append((add, _text(key, more)))
    for key, access in start.access.items():
        less = access - wanted.access.get(key, frozenset())
        if less:
            writes.append((take, _text(key, less)))
    return writes
