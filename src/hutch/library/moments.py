"""Points in time as callers give them."""

from __future__ import annotations

import time
from datetime import datetime

from hutch.engine.moments import parse_moment


def nanos(moment: datetime | float | str) -> int:
    """Nanoseconds since 1970.

    Args:
        moment: a datetime (local time if it has no zone), seconds since 1970, or what --since takes: ``"10m"``.
    """
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1_000_000) * 1000
    if isinstance(moment, (int, float)):
        return int(moment * 1_000_000) * 1000
    return parse_moment(moment, time.time_ns())
