"""What the user writes to attach storage, ``-v --mount --tmpfs --device`` → `MountRequest` and `DeviceRequest`.

Only the text is understood here; whether a source exists and what it becomes is decided in `hutch.engine.mounts`.
"""

from __future__ import annotations

from hutch.engine.record import Record
from hutch.engine.values import has_control, only_digits, parse_bool, parse_bytes
from hutch.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_SWITCHES = {"exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev"}
_CONSISTENCY = ("consistent", "cached", "delegated", "default")
TMPFS_OPTIONS = ("ro", "rw", "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "noatime", "relatime", *_SWITCHES)


class MountRequest(Record):
    """One mount the user asked for.

    Attributes:
        kind: bind, volume, tmpfs or image; from, for all that another container has (--volumes-from).
        target: absolute path in the container.
        source: host path, volume name, image reference or container; empty for an anonymous volume and a tmpfs.
        options: mount options given by name (exec, suid, dev and their opposites).
        recursive: for a bind, ``enabled``, ``disabled``, ``writable`` or ``readonly``.
        create_source: for a bind, make the missing source directory (what -v does and --mount does not).
        relabel: z or Z, the label for SELinux: for every container, or for this one.
        selinux: the values of --security-opt label=, for that label.
        copy_up: fill an empty volume from the image.
        subpath: of a volume or an image, the directory or file in it to mount; relative, without "..".
        volume_options: the driver's, for a volume that is made.
        implied: not asked for by the user, but by the image's VOLUME.
        data: options of a tmpfs (``size=…``, ``mode=…``).
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()
    propagation: str = "rprivate"
    recursive: str = "enabled"
    create_source: bool = False
    relabel: str = ""
    selinux: tuple[str, ...] = ()
    copy_up: bool = True
    subpath: str = ""
    labels: tuple[str, ...] = ()
    volume_options: tuple[tuple[str, str], ...] = ()
    data: tuple[str, ...] = ()
    implied: bool = False


class DeviceRequest(Record):
    """--device: a device node (or a directory of them) of the host, where it appears, and what may be done."""

    source: str
    target: str
    access: str = "rwm"


def clean_target(path: str) -> str:
    """Check and normalise an absolute path in the container, lexically: nothing below a root is opened by it.

    Raises:
        InvalidArgument: relative, the root itself, or with control characters.
    """
    if has_control(path):
        raise InvalidArgument(f"invalid mount path: {path[:64]!r} has control characters")
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise InvalidArgument(f"invalid specification: destination can't be '/': {path}")
    return "/" + "/".join(parts)


def parse_volume(text: str) -> MountRequest:
    """Read ``-v [SOURCE:]TARGET[:OPTIONS]``: a host path, a volume's name, or an anonymous volume."""
    parts = text.split(":")
    if not text or any(not part for part in parts) or "\0" in text:
        raise InvalidArgument(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountRequest(kind="volume", target=clean_target(parts[0]))
    source, target = parts[0], clean_target(parts[1])
    is_path = source[0] in "/." or source == "~"
    given = _volume_options(parts[2].split(",") if len(parts) == 3 else [], text, bind=is_path)
    if is_path:
        return MountRequest(kind="bind", source=source, target=target, create_source=True, **given)
    return MountRequest(kind="volume", source=source, target=target, **given)


def _volume_options(words: list[str], text: str, *, bind: bool) -> dict[str, Any]:
    given: dict[str, Any] = {}
    options: list[str] = []
    key: str
    value: Any
    for word in words:
        if word in ("ro", "rw", "readonly"):
            key, value = "read_only", word != "rw"
        elif word in PROPAGATIONS and bind:
            key, value = "propagation", word
        elif word in ("z", "Z"):
            key, value = "relabel", word
        elif word in ("nocopy", "copy") and not bind:
            key, value = "copy_up", word == "copy"
        elif word in ("bind", "rbind") and bind:
            key, value = "recursive", "enabled" if word == "rbind" else "disabled"
        elif word in _SWITCHES:
            options.append(word)
            continue
        elif word in _CONSISTENCY:
            continue  # a promise weaker than what a Linux mount always keeps
        elif word in ("U", "idmap"):
            raise NotSupported(f"invalid mode: {word}: changing the owner of a volume is not supported")
        else:
            raise InvalidArgument(f"invalid mode: {word}")
        if key in given:
            raise InvalidArgument(f"invalid mode: {text.rpartition(':')[2]}: conflicting options")
        given[key] = value
    if options:
        given["options"] = tuple(options)
    return given


def _split_csv(text: str) -> list[str]:
    """The fields of one CSV record; a field in double quotes may hold commas, and "" for a quote."""
    fields, field, quoted, index = [], "", False, 0
    while index < len(text):
        char = text[index]
        if quoted and char == '"' and text[index + 1 : index + 2] == '"':
            field, index = field + '"', index + 1
        elif char == '"' and (quoted or not field):
            quoted = not quoted
        elif char == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += char
        index += 1
    if quoted:
        raise InvalidArgument(f'parse error in "{text[:64]}": extraneous or missing " in quoted-field')
    return [*fields, field]


def parse_mount(text: str) -> MountRequest:
    """Read ``--mount type=bind|volume|tmpfs|image,source=…,target=…[,key=value…]``, as CSV."""
    given: dict[str, Any] = {}
    kind, family = "volume", ""
    for field in _split_csv(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key in ("readonly", "ro"):
            given["read_only"] = _switch(key, value if equals else "true")
            continue
        if key in ("rw", "readwrite"):
            given["read_only"] = not _switch(key, value if equals else "true")
            continue
        if key in ("volume-nocopy", "bind-nonrecursive", "bind-create-src"):
            family = key.partition("-")[0]
            _set_switch(given, key, _switch(key, value if equals else "true"))
            continue
        if not equals:
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
        if key == "type":
            kind = value.lower()
        elif key in _FIELDS:
            given[_FIELDS[key]] = value
        elif key in _TYPED:
            family = key.partition("-")[0]
            _TYPED[key](given, key, value)
        elif key == "consistency":
            if value not in _CONSISTENCY:
                raise InvalidArgument(f"invalid value for consistency: {value}")
        else:
            raise InvalidArgument(f"unexpected key '{key}' in '{field}'")
    return _checked(kind, family, given)


def _switch(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except InvalidArgument:
        raise InvalidArgument(f"invalid value for {key}: {value}") from None


def _set_switch(given: dict[str, Any], key: str, on: bool) -> None:
    if key == "volume-nocopy":
        given["copy_up"] = not on
    elif key == "bind-create-src":
        given["create_source"] = on
    else:
        given["recursive"] = "disabled" if on else "enabled"


def _set_propagation(given: dict[str, Any], key: str, value: str) -> None:
    if value not in PROPAGATIONS:
        raise InvalidArgument(f"invalid value for {key}: {value}")
    given["propagation"] = value


def _set_recursive(given: dict[str, Any], key: str, value: str) -> None:
    if value not in ("enabled", "disabled", "writable", "readonly"):
        words = '"enabled", "disabled", "writable", or "readonly"'
        raise InvalidArgument(f"invalid value for {key}: {value} (must be {words})")
    given["recursive"] = value


def _set_size(given: dict[str, Any], key: str, value: str) -> None:
    try:
        size = parse_bytes(value)
    except InvalidArgument:
        raise InvalidArgument(f"invalid value for {key}: {value}") from None
    given["data"] = (*given.get("data", ()), f"size={size}")


def _set_mode(given: dict[str, Any], key: str, value: str) -> None:
    if not value or not set(value) <= set("01234567") or int(value, 8) > 0o7777:
        raise InvalidArgument(f"invalid value for {key}: {value}")
    given["data"] = (*given.get("data", ()), f"mode={value}")


def _set_subpath(given: dict[str, Any], key: str, value: str) -> None:
    if not value or value.startswith("/") or ".." in value.split("/") or has_control(value):
        raise InvalidArgument(f"invalid value for {key}: {value}: must be a relative path within the {key[:-8]}")
    given["subpath"] = value


def _set_label(given: dict[str, Any], _key: str, value: str) -> None:
    given["labels"] = (*given.get("labels", ()), value)


def _check_driver(_given: dict[str, Any], key: str, value: str) -> None:
    if value != "local":
        raise NotSupported(f"{key}={value}: only the local volume driver is supported")


def _add_option(given: dict[str, Any], key: str, value: str) -> None:
    name, equals, text = value.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid value for {key}: {value}: must be key=value")
    given["volume_options"] = (*given.get("volume_options", ()), (name, text))


_FIELDS = {"source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target"}
_TYPED = {
    "bind-propagation": _set_propagation,
    "bind-recursive": _set_recursive,
    "tmpfs-size": _set_size,
    "tmpfs-mode": _set_mode,
    "volume-subpath": _set_subpath,
    "image-subpath": _set_subpath,
    "volume-label": _set_label,
    "volume-driver": _check_driver,
    "volume-opt": _add_option,
}


def _checked(kind: str, family: str, given: dict[str, Any]) -> MountRequest:
    if not given.get("target"):
        raise InvalidArgument("target is required")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidArgument(f'mount type unknown: "{kind}"')
    if family and family != kind:
        raise InvalidArgument(f"cannot mix '{family}-*' options with mount type '{kind}'")
    target, source = clean_target(str(given.pop("target"))), str(given.get("source", ""))
    if "\0" in source:
        raise InvalidArgument("invalid mount source: it has a NUL")
    if kind in ("bind", "image") and not source:
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Source must not be empty')
    if kind == "tmpfs" and source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    if kind == "image":
        given["read_only"] = given.get("read_only", True)
    if kind == "bind" and given.get("recursive") == "readonly" and not given.get("read_only"):
        raise InvalidArgument("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
    return MountRequest(kind=kind, target=target, **given)


def parse_volumes_from(text: str) -> MountRequest:
    """Read ``--volumes-from CONTAINER[:ro|rw|z|Z]``: everything that another container has attached."""
    name, colon, mode = text.partition(":")
    if not name or has_control(name):
        raise InvalidArgument(f"invalid volumes-from: {text[:64]!r}: no container")
    if colon and mode not in ("ro", "rw", "z", "Z"):
        raise InvalidArgument(f"invalid mode: {mode[:64]}")
    relabel = mode if mode in ("z", "Z") else ""
    return MountRequest(kind="from", target="", source=name, read_only=mode == "ro", relabel=relabel)


def parse_tmpfs(text: str) -> MountRequest:
    """Read ``--tmpfs TARGET[:OPTIONS]``; the options are mount(8)'s for tmpfs."""
    target, _, words = text.partition(":")
    options, data, read_only = [], [], False
    for word in words.split(",") if words else []:
        name, equals, value = word.partition("=")
        if name not in TMPFS_OPTIONS or (equals and name in (*_SWITCHES, "ro", "rw", "noatime", "relatime")):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
        if name in ("ro", "rw"):
            read_only = name == "ro"
        elif not equals:
            options.append(name)
        elif name == "size" and not value.endswith("%"):
            data.append(f"size={parse_bytes(value)}")
        elif not (only_digits(value.removesuffix("%"))):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
        else:
            data.append(word)
    return MountRequest(
        kind="tmpfs", target=clean_target(target), read_only=read_only, options=tuple(options), data=tuple(data)
    )


def parse_device(text: str) -> DeviceRequest:
    """Read ``--device SOURCE[:TARGET][:ACCESS]``; ACCESS is of the letters r, w and m."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0].startswith("/") or has_control(text):
        hint = "CDI device names are not supported" if "=" in parts[0] else ""
        raise InvalidArgument(f"invalid device specification: {text}", hint=hint)
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        target, access = parts[1] or source, parts[2]
    elif len(parts) == 2:
        if parts[1].startswith("/"):
            target = parts[1]
        else:
            access = parts[1]
    if not access or not set(access) <= set("rwm") or len(set(access)) != len(access):
        raise InvalidArgument(f"invalid device mode: {access}")
    return DeviceRequest(source=source, target=clean_target(target), access=access)
