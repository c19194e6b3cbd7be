"""Container ids, readable names, and the subordinate id ranges that user namespaces are made of."""

from __future__ import annotations

import os

from hutch.engine.record import Record
from hutch.engine.values import only_digits
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.spec.runtime import LinuxIDMapping

_LEFT = (
    "able amber autumn bold brave brisk calm clear clever cosy crisp deft eager early fair fleet fresh gentle glad "
    "golden hardy hazel honest idle jolly keen kind lively lucky merry mild misty modest neat nimble noble patient "
    "placid plucky polite proud quiet quick rapid ready round rustic sandy serene sharp silver sleepy snug sober solid "
    "spry steady still stout sunny sure swift tender tidy tranquil vivid warm wary wise witty young zesty".split()
)
_RIGHT = (
    "badger beaver bilby bison bobcat burrow civet coney cottontail coypu cuniculus dormouse fennel ferret fox gerbil "
    "gopher groundhog hare hedgehog heron jackrabbit jerboa kestrel lapin larder leveret lynx marmot marten meadow "
    "mole mouse muskrat otter owl pika pinecone plover polecat quail rabbit raccoon sable shrew squirrel stoat swallow "
    "tapir thicket thistle vole wagtail warren weasel whistler willow wombat woodchuck wren".split()
)
_FILE_LIMIT = 4 << 20
RANGE = 65_536


def new_id() -> str:
    """A container id: 64 random hexadecimal digits."""
    while True:
        found = os.urandom(32).hex()
        if not only_digits(found[:12]):  # a short id of digits alone would be taken for a number as a host name
            return found


def new_name(attempt: int = 0) -> str:
    """A random readable name; `attempt` above 5 adds a number, so that any store finds a free one."""
    left, right, number = os.urandom(3)
    name = f"{_LEFT[left % len(_LEFT)]}_{_RIGHT[right % len(_RIGHT)]}"
    return f"{name}{number}" if attempt > 5 else name


class SubIds(Record):
    """A range of ids of the host that a user may map: `count` from `start`."""

    start: int
    count: int


def subordinate_ids(path: str, user: str, uid: int) -> tuple[SubIds, ...]:
    """The ranges that /etc/subuid or /etc/subgid gives a user, by name or number, in the file's order.

    Returns:
        Nothing when the file is missing; malformed lines are skipped, as newuidmap does.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ()
    found = []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner not in (user, str(uid)) or not owner or len(numbers) != 2 or not all(map(only_digits, numbers)):
            continue
        start, count = (int(number[:10]) for number in numbers)
        if count and start + count <= (1 << 32) - 1:
            found.append(SubIds(start=start, count=count))
    return tuple(found)


def map_ids(own: int, ranges: tuple[SubIds, ...]) -> list[LinuxIDMapping]:
    """Container id 0 is the caller's own id, and 1 and up are its subordinate ids, if any."""
    mapping: list[LinuxIDMapping] = [{"containerID": 0, "hostID": own, "size": 1}]
    inside = 1
    for piece in ranges:
        mapping.append({"containerID": inside, "hostID": piece.start, "size": piece.count})
        inside += piece.count
    return mapping


def keep_ids(own: int, mapping: list[LinuxIDMapping]) -> list[LinuxIDMapping]:
    """Rearrange a mapping of `map_ids` so that the caller has the same id inside as outside (--userns=keep-id)."""
    kept: list[LinuxIDMapping] = []
    room, inside = [piece for piece in mapping if piece["hostID"] != own or piece["containerID"] != 0], 0
    if own == 0 or not room:
        return [{"containerID": own, "hostID": own, "size": 1}]
    for piece in room:
        start, size = piece["hostID"], piece["size"]
        before = min(size, max(0, own - inside)) if inside < own else 0
        if before:
            kept.append({"containerID": inside, "hostID": start, "size": before})
            inside, start, size = inside + before, start + before, size - before
        if inside == own:
            kept.append({"containerID": own, "hostID": own, "size": 1})
            inside += 1
        if size:
            kept.append({"containerID": inside, "hostID": start, "size": size})
            inside += size
    if inside <= own:
        kept.append({"containerID": own, "hostID": own, "size": 1})
    return kept


def host_id(inside: int, mapping: list[LinuxIDMapping]) -> int:
    """What the host calls the container's id `inside`; the id itself without a mapping.

    Raises:
        InvalidArgument: the container has no such id.
    """
    if not mapping:
        return inside
    for piece in mapping:
        if piece["containerID"] <= inside < piece["containerID"] + piece["size"]:
            return piece["hostID"] + inside - piece["containerID"]
    raise InvalidArgument(
        f"id {inside} is not mapped in the container's user namespace",
        hint="add a range for this user to /etc/subuid and /etc/subgid",
    )
