"""What the tests share: facts about the host, real registries, images made by other tools, hostile images."""

from __future__ import annotations

from tests.support.host import requires

__all__ = ["requires"]
