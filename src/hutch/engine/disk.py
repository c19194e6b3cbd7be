"""What images, containers and volumes take on disk, and what of it nobody would miss."""

from __future__ import annotations

from hutch.engine import lifecycle
from hutch.engine.inspecting import sizes
from hutch.engine.storage import volumes_in_use
from hutch.errors import ContainerNotFound, HutchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.image.image import Image
    from hutch.volume.store import Volume


class ImageSpace:
    """One image: bytes of its unpacked layers, of those it shares with other images, and ids of its containers."""

    def __init__(self, image: Image, size: int, shared: int, containers: list[str]) -> None:
        self.image, self.size, self.shared, self.containers = image, size, shared, containers


class ContainerSpace:
    """One container: its status and the bytes it has written."""

    def __init__(self, directory: ContainerDirectory, status: str, size: int) -> None:
        self.directory, self.record, self.status, self.size = directory, directory.record, status, size

    @property
    def active(self) -> bool:
        """Whether it runs."""
        return self.status in ("running", "paused", "restarting")


class VolumeSpace:
    """One volume: bytes of its data, and ids of the containers that have it."""

    def __init__(self, volume: Volume, size: int, containers: list[str]) -> None:
        self.volume, self.size, self.containers = volume, size, containers


class Disk:
    """All of it.

    Attributes:
        layers: bytes of all layers that images have, each once.
        idle_layers: bytes of those of them that no container stands on.
    """

    def __init__(self, engine: Engine) -> None:
        self.containers = _containers(engine)
        self.images, self.layers, self.idle_layers = _images(engine, self.containers)
        self.volumes = _volumes(engine)


def _containers(engine: Engine) -> list[ContainerSpace]:
    found = []
    for directory in engine.containers.all():
        with directory:
            try:
                status = lifecycle.status_of(engine, directory)
                size, _ = sizes(engine, directory.record)
            except ContainerNotFound:
                continue
            except HutchError:
                size = 0  # damaged, which `system check` says
            found.append(ContainerSpace(directory, status, size))
    return found


def _images(engine: Engine, containers: list[ContainerSpace]) -> tuple[list[ImageSpace], int, int]:
    images = engine.images.images()
    size = {
        chain_id: engine.snapshots.info(chain_id).size
        for chain_id in {one for image in images for one in image.chain_ids}
        if engine.snapshots.has(chain_id)
    }
    users: dict[str, int] = {}
    for image in images:
        for chain_id in set(image.chain_ids):
            users[chain_id] = users.get(chain_id, 0) + 1
    stood_on = {chain_id for one in containers for chain_id in one.record.chain_ids}
    found = [
        ImageSpace(
            image,
            sum(size.get(chain_id, 0) for chain_id in image.chain_ids),
            sum(size.get(chain_id, 0) for chain_id in image.chain_ids if users[chain_id] > 1),
            [one.record.id for one in containers if one.record.image_id == image.id],
        )
        for image in images
    ]
    idle = sum(number for chain_id, number in size.items() if chain_id not in stood_on)
    return found, sum(size.values()), idle


def _volumes(engine: Engine) -> list[VolumeSpace]:
    used = volumes_in_use(engine)
    return [
        VolumeSpace(volume, engine.volumes.usage(volume.name), used.get(volume.name, []))
        for volume in engine.volumes.list()
    ]
