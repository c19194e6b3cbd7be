"""The keys that detach from a terminal."""

from __future__ import annotations

from hutch.errors import InvalidArgument

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """Read ``ctrl-p,ctrl-q``: single characters, or ctrl- and a letter or one of ``@ [ \\ ] ^ _``; empty is none.

    Raises:
        InvalidArgument: anything else.
    """
    keys = bytearray()
    for word in text.split(",") if text else []:
        letter = word.removeprefix("ctrl-")
        if len(word) == 1 and word.isascii() and word.isprintable():
            keys.append(ord(word))
        elif letter != word and len(letter) == 1 and letter.isascii() and letter.isalpha():
            keys.append(ord(letter.lower()) - ord("a") + 1)
        elif letter != word and letter in _CONTROL:
            keys.append(_CONTROL[letter])
        else:
            raise InvalidArgument(f"invalid detach keys ({text[:64]}): unknown character: '{word[:16]}'")
    return bytes(keys)


class DetachKeys:
    """Finds the detach sequence in what is typed, over as many reads as it takes."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take typed bytes.

        Returns:
            What goes on to the container (a beginning of the sequence is held back), and whether it is complete.
        """
        if not self._keys:
            return data, False
        data = self._held + data
        found = data.find(self._keys)
        if found >= 0:
            self._held = b""
            return data[:found], True
        kept = next((size for size in range(len(self._keys) - 1, 0, -1) if data.endswith(self._keys[:size])), 0)
        self._held = data[len(data) - kept :] if kept else b""
        return data[: len(data) - kept], False
