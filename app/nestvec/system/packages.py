"""What is installed beside this package, and imports of many modules at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# What runs graphs; the first two are one runtime, of which one is installed.
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu", "openvino")


def installed_version(package: str) -> str | None:
    """Return a package's version, which is not imported for it; None where it is not installed."""
    from importlib.metadata import (  # `nestvec --help` needs none of it
        PackageNotFoundError,
        version,
    )

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def imported_whole() -> Iterator[None]:
    """Import modules without collecting garbage meanwhile.

    Modules define and throw little away, while the collector walks all that there is again and again: a seventh of the
    time of a server's imports.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
