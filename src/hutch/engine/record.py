"""`Record`: the engine's plain value classes, without the 15 ms that importing `dataclasses` costs a cold start.

A subclass lists annotated fields with defaults, as a dataclass does; type checkers see it as one. Fields are given
by keyword, a mutable default must be a tuple or None, and nothing may be assigned after construction.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_given: bool):  # noqa: ANN201
        """Stand in for typing's decorator at run time."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen value compared by its fields."""

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        written = cls.__dict__.get("__annotations__", {})  # noqa: RUF063  # inspect costs 10 ms
        own = tuple(name for name in written if not name.startswith("_"))
        cls._fields = tuple(name for name in cls._fields if name not in own) + own

    def __init__(self, **given: Any) -> None:
        for name in given:
            if name not in self._fields:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
        for name in self._fields:
            if name not in given and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs the field {name!r}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot assign {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.asdict() == other.asdict()

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        changed = (f"{n}={getattr(self, n)!r}" for n in self._fields if n in self.__dict__)
        return f"{type(self).__name__}({', '.join(changed)})"

    def asdict(self) -> dict[str, Any]:
        """Every field and its value, defaults included."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})
