"""To hear of `import wandb` without importing it: a training may do all with it before its first step."""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NAME: Final = "wandb"


class ImportWatch(MetaPathFinder):
    """Calls `heard` once, right after wandb's own code was run and before its importer goes on."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Look no further."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002 - as above
    ) -> ModuleSpec | None:
        """The one that the others find, with a loader that tells."""
        if fullname != _NAME:
            return None
        self.close()
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec.loader if spec is not None else None
        if hasattr(loader, "exec_module"):
            original = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                original(module)
                self._heard()

            loader.exec_module = exec_module
        return spec
