from __future__ import annotations

import os
import subprocess
import sys

import hutch.linux

DIRECTORY = os.path.dirname(hutch.linux.__file__)
MODULES = sorted(name[:-3] for name in os.listdir(DIRECTORY) if name.endswith(".py") and name != "__init__.py")
ALLOWED = set(
    "__future__ _collections_abc _ctypes _socket _stat _struct ctypes ctypes._endian errno fcntl genericpath os os.path"
    " posixpath stat struct termios types".split()
)


def test_the_kernel_layer_imports_nothing_slow_and_nothing_above_it():
    program = (
        f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(DIRECTORY))!r}); old = set(sys.modules)\n"
        + "".join(f"import hutch.linux.{name}\n" for name in MODULES)
        + "print(*sorted(set(sys.modules) - old))"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True).stdout
    loaded = set(out.split())
    ours = {"hutch", "hutch.linux", *(f"hutch.linux.{name}" for name in MODULES)}
    assert loaded - ours <= ALLOWED
    assert ours <= loaded
