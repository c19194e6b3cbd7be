"""hutch.db: containers, events and accounts in one SQLite file that any number of processes use at the same time.

Write-ahead logging lets readers go on while somebody writes. A transaction that must survive a power cut is synced;
the rest may be lost with the last moments before one, but is never torn.

A full disk must not keep anybody from writing down that a container has ended, or from removing one: a reserve is
held beside the file, and let go of when there is no other room.

`_sqlite3` is the C half of `sqlite3`, whose other half costs 5 ms to import; where a Python lacks it under that name,
the public module does.
"""

from __future__ import annotations

import _thread
import errno
import os

from hutch.errors import Internal, NotSupported, PermissionDenied
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3 as _sqlite3
    from collections.abc import Iterable
    from typing import Any, Self
else:
    try:
        import _sqlite3
    except ImportError:
        import sqlite3 as _sqlite3

NAME = "hutch.db"
_BUSY_TIMEOUT_S = 60.0
_LOG_PAGES = 250
"""How long the log may become: who opens the file after everybody has gone reads it whole, a megabyte at most.

Most processes end without closing: the last one to close would write everything back and wait for the disk.
"""
_RESERVE, _SHARE = 4 << 20, 16
"""Bytes held in reserve, which is how long the write-ahead log gets; a small disk gives up a 16th of itself."""
_LITTLE = 4
"""Below a quarter of the reserve there is no other room."""

_MIGRATIONS = (
    """
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        active INTEGER NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX active_containers ON containers (id) WHERE active;
    CREATE TABLE execs (
        id TEXT PRIMARY KEY,
        container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        record TEXT NOT NULL
    );
    CREATE INDEX execs_of ON execs (container_id);
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        time_nanos INTEGER NOT NULL,
        type TEXT NOT NULL,
        action TEXT NOT NULL,
        actor TEXT NOT NULL,
        attributes TEXT NOT NULL
    );
    CREATE INDEX events_by_time ON events (time_nanos);
    CREATE TABLE usage (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        container_id TEXT NOT NULL,
        exec_id TEXT NOT NULL,
        name TEXT NOT NULL,
        image TEXT NOT NULL,
        finished_nanos INTEGER NOT NULL,
        usage TEXT NOT NULL
    );
    CREATE INDEX usage_by_time ON usage (finished_nanos);
    """,
)
"""The schema's history; a file's `user_version` is how many of these it has been through."""


class Database:
    """The one file; opened when first used, and again in a forked child.

    Who forks a child that goes on to use it closes it before: SQLite keeps books on locks that a fork makes untrue.

    Args:
        root: the data root, which exists and is ours.
    """

    def __init__(self, root: str) -> None:
        self.path = f"{root}/{NAME}"
        self._connection: _sqlite3.Connection | None = None
        self._owner = 0
        self._lock = _thread.RLock()

    def read(self, statement: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT; none where nothing was ever stored."""
        with self._lock:
            connection = self._open(reading=True)
            if connection is None:
                return []
            try:
                return connection.execute(statement, tuple(arguments)).fetchall()
            except _sqlite3.DatabaseError as error:
                raise self._problem(error) from None

    def transaction(self, *, durable: bool = True) -> Transaction:
        """A context manager: everything in it happens, or nothing.

        Args:
            durable: whether it must survive a power cut once it has ended.
        """
        return Transaction(self, self._lock, durable=durable)

    def hold_reserve(self) -> None:
        """Set room aside; who is about to make something new calls this first.

        Raises:
            OSError: there is none (ENOSPC).
        """
        if self._is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.path.dirname(self.path))
        try:
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            os.posix_fallocate(fd, 0, _reserve_size(os.fstatvfs(fd)))
        except OSError as error:
            os.unlink(self._reserve)
            raise OSError(error.errno, os.strerror(error.errno or 0), os.path.dirname(self.path)) from None
        finally:
            os.close(fd)

    def make_room(self) -> None:
        """Let go of the reserve if the disk is full."""
        if self._is_full():
            try:
                os.unlink(self._reserve)
            except FileNotFoundError:
                return

    def _is_full(self) -> bool:
        found = os.statvfs(os.path.dirname(self.path))
        free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        return free * found.f_frsize < _reserve_size(found) // _LITTLE

    @property
    def _reserve(self) -> str:
        return f"{self.path}-reserve"

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        # Python 3.13 warns of a connection that nobody closed. A parent's must not be collected: see _open.
        if self._connection is not None and self._owner != os.getpid():
            _PARENTS.append(self._connection)
        elif self._connection is not None:
            self._connection.close()

    def connection(self) -> _sqlite3.Connection:
        """The open file, for a transaction."""
        found = self._open(reading=False)
        assert found is not None
        return found

    def _open(self, *, reading: bool) -> _sqlite3.Connection | None:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        if self._connection is not None:
            # A parent's. Its descriptors may be other files' by now: it must not even be collected.
            _PARENTS.append(self._connection)
            self._connection = None
        if reading and not os.path.exists(self.path):
            return None
        self._connection = self._connect(reading=reading)
        self._owner = os.getpid()
        return self._connection

    def _connect(self, *, reading: bool) -> _sqlite3.Connection:
        try:
            connection = _connect(self.path, "")
        except _sqlite3.OperationalError as error:
            if not reading or os.access(self.path, os.W_OK):
                raise self._problem(error) from None
            # A read-only file system: nobody writes there, so nobody has to be waited for.
            return _connect(self.path, "?mode=ro&immutable=1")
        try:
            _prepare(connection, self.path)
        except _sqlite3.DatabaseError as error:
            connection.close()
            if reading and "readonly" in str(error):
                return _connect(self.path, "?mode=ro&immutable=1")
            raise self._problem(error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _problem(self, error: Exception) -> Exception:
        text = str(error)
        if "readonly" in text or "unable to open" in text:
            return PermissionDenied(f"{self.path}: {text}")
        if "full" in text:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if "disk I/O" in text:
            return OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        hint = "hutch system check says what is damaged" if "malformed" in text or "not a database" in text else ""
        return Internal(f"{self.path}: {text}", hint=hint)

    def problem(self, error: Exception) -> Exception:
        """SQLite's error as one of ours."""
        return self._problem(error)


_PARENTS: list[_sqlite3.Connection] = []


class Transaction:
    """One transaction, nested ones being part of the outermost; see `Database.transaction`."""

    def __init__(self, database: Database, lock: Any, *, durable: bool) -> None:
        self._database, self._lock, self._durable = database, lock, durable
        self._connection: _sqlite3.Connection | None = None
        self._outermost = False

    def __enter__(self) -> Self:
        self._lock.acquire()
        try:
            self._database.make_room()
            connection = self._database.connection()
            self._outermost = not connection.in_transaction
            if self._outermost:
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
            self._connection = connection
        except _sqlite3.DatabaseError as error:
            self._lock.release()
            raise self._database.problem(error) from None
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        connection = self._connection
        assert connection is not None
        try:
            if self._outermost:
                connection.execute("COMMIT" if kind is None else "ROLLBACK")
        except _sqlite3.DatabaseError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise self._database.problem(error) from None
        finally:
            self._lock.release()

    def execute(self, statement: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; the rows it gives.

        Raises:
            UniqueViolation: something of that name or id is there already.
        """
        assert self._connection is not None
        try:
            return self._connection.execute(statement, tuple(arguments)).fetchall()
        except _sqlite3.IntegrityError as error:
            raise UniqueViolation(str(error)) from None
        except _sqlite3.DatabaseError as error:
            raise self._database.problem(error) from None


def as_json(value: Any) -> str:
    """JSON for a column: undecodable bytes of a text are escaped, which SQLite would refuse."""
    return documents.dump_bytes(value).decode()


class UniqueViolation(Exception):
    """Two rows would have the same key."""


def _reserve_size(disk: os.statvfs_result) -> int:
    return max(1, min(_RESERVE, disk.f_blocks * disk.f_frsize // _SHARE))


def _connect(path: str, query: str) -> _sqlite3.Connection:
    escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return _sqlite3.connect(
        f"file:{escaped}{query}", timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True
    )


def _prepare(connection: _sqlite3.Connection, path: str) -> None:
    """Bring the file to the current schema; exactly one of several processes does it."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    if version > len(_MIGRATIONS):
        raise NotSupported(
            f"{path}: made by a newer hutch (schema {version})", hint="use that version, or another --root"
        )
    if version == len(_MIGRATIONS):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    os.chmod(path, 0o600)
