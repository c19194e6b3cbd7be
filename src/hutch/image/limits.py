"""What one layer may cost: limits against decompression bombs (security.md D13)."""

from __future__ import annotations

from hutch.errors import InvalidLayer

GIB = 1 << 30


class Limits:
    """Bounds on one layer.

    Attributes:
        bytes_max: uncompressed stream, and data written; not counting holes.
        inodes_max: entries and directories made.
        ratio_max: uncompressed bytes per compressed byte, once more than `ratio_from` bytes came out.
            (deflate reaches 1030:1; real layers stay under 50:1 but for preallocated zeros.)
        zstd_window_max: memory a frame may ask for, in bytes.
    """

    __slots__ = ("bytes_max", "inodes_max", "ratio_from", "ratio_max", "zstd_window_max")

    def __init__(
        self,
        *,
        bytes_max: int = 128 * GIB,
        inodes_max: int = 4_000_000,
        ratio_max: int = 200,
        ratio_from: int = 2 * GIB,
        zstd_window_max: int = 128 << 20,
    ) -> None:
        self.bytes_max = bytes_max
        self.inodes_max = inodes_max
        self.ratio_max = ratio_max
        self.ratio_from = ratio_from
        self.zstd_window_max = zstd_window_max

    def values(self) -> list[int]:
        """The five numbers, in the order of __slots__: what crosses to the unpacking child."""
        return [int(getattr(self, name)) for name in self.__slots__]

    @classmethod
    def of(cls, values: list[int]) -> Limits:
        """The limits that `values` came from."""
        return cls(**dict(zip(cls.__slots__, values, strict=True)))


class Quota:
    """Counts what has been written against the limits."""

    __slots__ = ("_limits", "bytes", "inodes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bytes = self.inodes = 0

    def count(self, size: int) -> None:
        """One more inode with `size` bytes, before it is written."""
        self.bytes += size
        self.inodes += 1
        if self.bytes > self._limits.bytes_max:
            raise InvalidLayer(f"layer: more than {self._limits.bytes_max} bytes", hint=_HINT)
        if self.inodes > self._limits.inodes_max:
            raise InvalidLayer(f"layer: more than {self._limits.inodes_max} files", hint=_HINT)


class Meter:
    """Watches a decompressor's input and output."""

    __slots__ = ("_limits", "read", "written")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.read = self.written = 0

    def check(self) -> None:
        """Raise once the stream has grown beyond the limits."""
        limits = self._limits
        if self.written > limits.bytes_max + limits.inodes_max * 1024:
            raise InvalidLayer(f"layer: more than {limits.bytes_max} bytes uncompressed", hint=_HINT)
        if self.written > limits.ratio_from and self.written > limits.ratio_max * self.read:
            raise InvalidLayer(
                f"layer: {self.written} bytes from {self.read} compressed ones: a decompression bomb", hint=_HINT
            )


_HINT = "the limits on layers are set in the configuration"
