"""Restart policies: whether a container that has ended is started again, and after how long."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIRST_DELAY_S, _MOST_DELAY_S = 0.1, 60.0
_STABLE_S = 10.0


class Backoff:
    """How long one container has to wait by now.

    Attributes:
        delay_s: before the next start; doubles with each that did not hold for ten seconds, up to a minute.
    """

    def __init__(self) -> None:
        self.delay_s = _FIRST_DELAY_S / 2

    def wants(self, restart: dict[str, Any], exit_code: int, restarts: int, ran_s: float) -> bool:
        """Whether to start it again; if so, `delay_s` is how long to wait.

        Args:
            restart: Docker's RestartPolicy: Name (no, always, unless-stopped, on-failure), MaximumRetryCount (0: any).
            exit_code: of the run that ended.
            restarts: how often it was started again so far.
            ran_s: how long that run was.
        """
        name, most = str(restart.get("Name", "no")), int(restart.get("MaximumRetryCount", 0))
        if name not in ("always", "unless-stopped") and not (name == "on-failure" and exit_code):
            return False
        if name == "on-failure" and most and restarts >= most:
            return False
        self.delay_s = _FIRST_DELAY_S if ran_s >= _STABLE_S else min(self.delay_s * 2, _MOST_DELAY_S)
        return True
