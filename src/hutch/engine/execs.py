"""Execs: what runs in a container besides its own program, for the store and for the runtime."""

from __future__ import annotations

from hutch.engine.database import as_json
from hutch.engine.ids import host_id, new_id
from hutch.engine.users import resolve_user
from hutch.linux import caps
from hutch.linux.paths import Root
from hutch.runtime import documents
from hutch.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.engine.database import Database
    from hutch.runtime.container import Container
    from hutch.spec.runtime import Process

_KEPT = 64
"""How many ended execs of a container are remembered."""


class ExecRecord:
    """One exec.

    Attributes:
        request: what it was asked with.
        exit_code: -1 until it has ended.
    """

    __slots__ = (
        "container_id", "created", "exit_code", "finished", "id", "pid", "request", "running", "start_time", "started",
    )  # fmt: skip

    def __init__(self, exec_id: str, container_id: str) -> None:
        self.id, self.container_id = exec_id, container_id
        self.created, self.started, self.finished = now(), "", ""
        self.request: dict[str, Any] = {}
        self.pid = self.start_time = 0
        self.running = False
        self.exit_code = -1

    @classmethod
    def new(cls, container_id: str, request: dict[str, Any]) -> ExecRecord:
        """A record of an exec that begins."""
        record = cls(new_id(), container_id)
        record.request = {name: value for name, value in request.items() if name != "op"}
        return record


def save(database: Database, record: ExecRecord) -> None:
    """Write it; nothing is written of a container that has been removed."""
    text = as_json({name: getattr(record, name) for name in ExecRecord.__slots__})
    with database.transaction(durable=False) as transaction:
        if transaction.execute("SELECT 1 FROM containers WHERE id = ?", [record.container_id]):
            transaction.execute(
                "INSERT OR REPLACE INTO execs (id, container_id, record) VALUES (?, ?, ?)",
                [record.id, record.container_id, text],
            )


def of_container(database: Database, container_id: str) -> list[ExecRecord]:
    """The execs of a container that are remembered, in the order they were started."""
    found = []
    for (text,) in database.read("SELECT record FROM execs WHERE container_id = ? ORDER BY rowid", [container_id]):
        stored = documents.parse_object(text.encode(), source="exec")
        record = ExecRecord(str(stored.get("id")), container_id)
        for name in ExecRecord.__slots__:
            setattr(record, name, stored.get(name, getattr(record, name)))
        found.append(record)
    return found


def forget(database: Database, container_id: str) -> None:
    """Keep the last ones only: a health check of one container runs thousands."""
    with database.transaction(durable=False) as transaction:
        transaction.execute(
            "DELETE FROM execs WHERE container_id = ? AND rowid NOT IN "
            "(SELECT rowid FROM execs WHERE container_id = ? ORDER BY rowid DESC LIMIT ?)",
            [container_id, container_id, _KEPT],
        )


def exec_process_spec(container: Container, record: ContainerRecord, request: dict[str, Any]) -> Process:
    """The process of an exec: the container's own, but for what `request` says.

    Raises:
        InvalidArgument: no such user, or one that the container's id maps lack.

    No capability is there that the container's own process lacks, unless ``privileged`` asks for all (CVE-2025-27612).
    """
    config = container.config
    own = config["process"]
    terminal = bool(request.get("tty"))
    process: Process = {**own, "args": list(request["args"]), "terminal": terminal}
    for name in ("consoleSize", "oomScoreAdj", "scheduler", "ioPriority"):
        process.pop(name, None)  # type: ignore[misc]
    env = dict(entry.partition("=")[::2] for entry in own.get("env") or [])
    if terminal:
        env.setdefault("TERM", "xterm")
    if request.get("user"):
        _become(process, container, str(request["user"]), record, env)
    env.update(entry.partition("=")[::2] for entry in request.get("env") or [])
    process["env"] = [f"{name}={value}" for name, value in env.items()]
    if request.get("cwd"):
        process["cwd"] = str(request["cwd"])
    if request.get("privileged"):
        everything = caps.names((1 << caps.last_cap() + 1) - 1)
        process["capabilities"] = {
            "bounding": everything, "effective": everything, "permitted": everything, "inheritable": [], "ambient": [],
        }  # fmt: skip
        process.pop("apparmorProfile", None)
        process["noNewPrivileges"] = False
    if size := request.get("size"):
        process["consoleSize"] = {"height": int(size[0]), "width": int(size[1])}
    return process


def _become(process: Process, container: Container, text: str, record: ContainerRecord, env: dict[str, str]) -> None:
    root = Root.at(f"/proc/{container.pid}/root")
    try:
        user = resolve_user(text, tuple(record.options.get("group_add") or ()), root)
    finally:
        root.close()
    linux = container.config["linux"]
    host_id(user.uid, linux.get("uidMappings") or [])
    for gid in user.groups:
        host_id(gid, linux.get("gidMappings") or [])
    process["user"] = {**process["user"], "uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
    bounding = (process.get("capabilities") or {}).get("bounding") or []
    held = bounding if user.uid == 0 else []
    process["capabilities"] = {
        "bounding": bounding, "effective": held, "permitted": held, "inheritable": [], "ambient": [],
    }  # fmt: skip
    if not any(entry.startswith("HOME=") for entry in record.options.get("env") or ()):
        env["HOME"] = user.home
