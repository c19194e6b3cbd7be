"""hutch: a complete container engine in Python.

    import hutch

    with hutch.Engine() as engine:
        print(engine.containers.run("debian:bookworm", "cat /etc/os-release"))

See docs/user/library.md. Importing this imports nothing else: names come when they are asked for, and __init__.pyi
tells type checkers of them.
"""

from __future__ import annotations

__version__ = "0.1.0.dev0"

_HOMES = {
    "Container": "hutch.library.container",
    "ContainerError": "hutch.errors",
    "Engine": "hutch.library.engine",
    "ExecResult": "hutch.library.streams",
    "ExecTimeout": "hutch.errors",
    "HutchError": "hutch.errors",
    "HutchWarning": "hutch.library.streams",
    "Image": "hutch.library.images",
    "Process": "hutch.library.streams",
    "Snapshot": "hutch.library.snapshots",
    "Volume": "hutch.library.volumes",
}
_MODULES = ("aio", "errors")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"hutch.{name}")
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'hutch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES, *_MODULES))
