"""`Engine`: where everything of one installation lies, and the stores opened on it, each when first used."""

from __future__ import annotations

import os
import stat

from hutch.engine.containers import ContainerStore
from hutch.engine.database import Database
from hutch.errors import InvalidArgument, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.host import HostFacts
    from hutch.image.image import Use
    from hutch.image.registries import Registries
    from hutch.image.store import ImageStore
    from hutch.snapshot.snapshotter import Snapshotter
    from hutch.volume.store import VolumeStore


class Engine:
    """One container engine: a data root and a state directory, both private to the caller.

    Args:
        root: images, layers, containers and volumes; None is /var/lib/hutch, or $XDG_DATA_HOME/hutch for a user.
        state: what runs; None is /run/hutch, or $XDG_RUNTIME_DIR/hutch. May vanish in a reboot.
    """

    def __init__(self, root: str | None = None, state: str | None = None) -> None:
        self.root = os.path.abspath(root) if root else _default_root()
        self.state = os.path.abspath(state) if state else _default_state(self.root)
        self.database = Database(self.root)
        self.containers = ContainerStore(self.root, self.database)
        self._facts: HostFacts | None = None
        self._images: ImageStore | None = None
        self._snapshots: Snapshotter | None = None
        self._volumes: VolumeStore | None = None
        self._configuration: dict[str, dict[str, Any]] | None = None
        self.snapshotter_reason = ""

    def prepare_directories(self) -> None:
        """Make the two directories, or check that what is there is ours.

        Raises:
            PermissionDenied: one belongs to somebody else, or others may write to it.
        """
        for path in (self.root, self.state):
            _own_directory(path)

    @property
    def runtime_state(self) -> str:
        """The runtime's state directory."""
        return f"{self.state}/runtime"

    @property
    def facts(self) -> HostFacts:
        """What this machine can do."""
        if self._facts is None:
            from hutch.engine.host import host_facts

            self._facts = host_facts()
        return self._facts

    @property
    def snapshots(self) -> Snapshotter:
        """Unpacked layers and the containers' own files."""
        if self._snapshots is None:
            from hutch.snapshot.choose import choose

            self._snapshots, choice = choose(self.root, self.configuration.get("storage", {}).get("snapshotter", ""))
            self.snapshotter_reason = choice.reason
        return self._snapshots

    @property
    def images(self) -> ImageStore:
        """The images."""
        if self._images is None:
            from hutch.image.content import ContentStore
            from hutch.image.store import ImageStore

            self.prepare_directories()
            self._images = ImageStore(
                ContentStore(f"{self.root}/content"), layers=self.snapshots, uses=self._uses,
                default_domain=self._default_domain(), told=self._image_event,
            )  # fmt: skip
        return self._images

    def forget_images(self) -> None:
        """Open the store of images anew when it is next asked for: its files were replaced."""
        self._images = None

    def _image_event(self, action: str, actor: str, name: str, labels: dict[str, str]) -> None:
        from hutch.engine import events

        try:
            events.enter(self.database, "image", action, actor, {**labels, "name": name})
        except PermissionDenied:
            if action != "save":  # an image can be saved from where nothing can be written
                raise

    def _default_domain(self) -> str:
        """The registry of a name without one; importing what reads the configuration costs more than a container."""
        from hutch.image.reference import DEFAULT_DOMAIN

        return self.registries.default if self.configuration.get("registries") else DEFAULT_DOMAIN

    @property
    def registries(self) -> Registries:
        """Mirrors, insecure hosts and certificates, as configured."""
        from hutch.image.registries import Registries

        return Registries.from_table(self.configuration.get("registries", {}))

    @property
    def volumes(self) -> VolumeStore:
        """The volumes."""
        if self._volumes is None:
            from hutch.volume.store import VolumeStore

            self._volumes = VolumeStore(self.root, told=self._volume_event)
        return self._volumes

    def _volume_event(self, action: str, name: str) -> None:
        from hutch.engine import events

        events.enter(self.database, "volume", action, name, {"driver": "local"})

    @property
    def configuration(self) -> dict[str, dict[str, Any]]:
        """The configuration file's tables."""
        if self._configuration is None:
            from hutch.engine.configuration import configuration_path, read_configuration

            self._configuration = read_configuration(configuration_path())
        return self._configuration

    def _uses(self) -> list[Use]:
        """Which containers stand on which images, for the image store."""
        from hutch.image.image import Use

        found = []
        for directory in self.containers.all():
            with directory:
                record = directory.record
                running = record.status not in ("created", "exited", "dead")
                images = {record.image_id: record.chain_ids, **record.mounted_images}
                found += [Use(record.id, image_id, tuple(chain), running) for image_id, chain in images.items()]
        return found


def _default_root() -> str:
    if os.geteuid() == 0:
        return "/var/lib/hutch"
    home = os.environ.get("XDG_DATA_HOME") or _home("/.local/share")
    return f"{home}/hutch"


def _default_state(root: str) -> str:
    if os.geteuid() == 0:
        return "/run/hutch"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # Without a session there is no safe shared place; a predictable name in /tmp would be anybody's to take.
    return f"{runtime}/hutch" if runtime.startswith("/") else f"{root}/run"


def _home(below: str) -> str:
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        raise InvalidArgument("HOME is not set", hint="set HOME or XDG_DATA_HOME, or give --root")
    return home + below


def _own_directory(path: str) -> None:
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise PermissionDenied(
            f"{path}: {os.strerror(error.errno or 0).lower()}", hint="give --root and --state"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionDenied(f"{path}: not a directory that only this user can write to")
