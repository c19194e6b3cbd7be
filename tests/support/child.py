"""Running a function in a forked child: for what a process cannot undo (namespaces, filters, identity)."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[[], Any]) -> Any:
    """Call `function` in a child and return its result, which must be JSON; its exception is an AssertionError here."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            answer = {"result": function()}
        except BaseException:  # everything is reported: nothing of the parent's frames may run here
            answer = {"failure": traceback.format_exc()}
        try:
            with os.fdopen(write_fd, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        raise AssertionError(f"the child ended without an answer: exit status {os.waitstatus_to_exitcode(status)}")
    answer = json.loads(text)
    if "failure" in answer:
        raise AssertionError("in the child:\n" + answer["failure"])
    return answer["result"]
