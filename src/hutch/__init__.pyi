from hutch import aio as aio
from hutch import errors as errors
from hutch.errors import ContainerError as ContainerError
from hutch.errors import ExecTimeout as ExecTimeout
from hutch.errors import HutchError as HutchError
from hutch.library.container import Container as Container
from hutch.library.engine import Engine as Engine
from hutch.library.images import Image as Image
from hutch.library.snapshots import Snapshot as Snapshot
from hutch.library.streams import ExecResult as ExecResult
from hutch.library.streams import HutchWarning as HutchWarning
from hutch.library.streams import Process as Process
from hutch.library.volumes import Volume as Volume

__version__: str
