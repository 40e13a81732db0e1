"""Nestvec: a self-hosted embedding inference server, and a library for embeddings in a process of yours."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nestvec.assembly.library.embedder import Embedder as Embedder
    from nestvec.assembly.library.embedder import RankedDocument as RankedDocument

__version__ = "0.1.0"

_LIBRARY = ("Embedder", "RankedDocument")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of any public name
    """Import what the library is made of when it is first asked for: `import nestvec` alone costs nothing.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _LIBRARY:
        raise AttributeError(f"module 'nestvec' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("nestvec.assembly.library.embedder"), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *_LIBRARY))
