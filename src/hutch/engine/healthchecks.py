"""Which health check a container gets: the user's words over the image's."""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.errors import InvalidArgument
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.image_settings import ImageSettings

_LEAST_NANOS = 1_000_000
_DURATIONS = (("Interval", "interval"), ("Timeout", "timeout"), ("StartPeriod", "start_period"))


class HealthOptions(Record):
    """--health-cmd and its like; durations in nanoseconds, 0 for what was not given.

    Attributes:
        command: given to a shell.
        none: --no-healthcheck.
    """

    command: str = ""
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    none: bool = False

    def check(self) -> None:
        """Check them against each other.

        Raises:
            InvalidArgument: --no-healthcheck with another one, or a value that cannot be.
        """
        given = self.command or self.interval or self.timeout or self.start_period or self.start_interval
        if self.none and (given or self.retries):
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        for name in ("interval", "timeout", "start_period", "start_interval"):
            if 0 < getattr(self, name) < _LEAST_NANOS:
                raise InvalidArgument(f"--health-{name.replace('_', '-')} cannot be less than 1ms")
        if self.retries < 0:
            raise InvalidArgument("--health-retries cannot be negative")


def healthcheck(options: HealthOptions, image: ImageSettings) -> dict[str, Any]:
    """Docker's ``Healthcheck`` object for the container; empty for none."""
    if options.none:
        return {"Test": ["NONE"]}
    found: dict[str, Any] = documents.parse(image.healthcheck, source="healthcheck") if image.healthcheck else {}
    if options.command:
        found["Test"] = ["CMD-SHELL", options.command]
        if image.shell:
            found["Shell"] = list(image.shell)
    for key, name in (*_DURATIONS, ("StartInterval", "start_interval"), ("Retries", "retries")):
        if value := getattr(options, name):
            found[key] = value
    return found if found.get("Test") and found["Test"] != ["NONE"] else {}
