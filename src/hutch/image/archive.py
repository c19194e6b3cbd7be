"""Images in and out of files: `load`, `save` and `import_`."""

from __future__ import annotations

from hutch.image.importing import import_
from hutch.image.load import Loaded, load
from hutch.image.save import FORMATS, save

__all__ = ["FORMATS", "Loaded", "import_", "load", "save"]
