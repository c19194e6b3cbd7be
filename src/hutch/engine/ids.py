"""Container ids, readable names, and arithmetic on id mappings."""

from __future__ import annotations

import os

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


def keep_ids(own: int, mapping: list[LinuxIDMapping]) -> list[LinuxIDMapping]:
    """Rearrange a mapping that has the caller as 0, so that it has its own id inside too (--userns=keep-id)."""
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
