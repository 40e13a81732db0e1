"""What is installed beside this package."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

# What runs graphs; the first two are one runtime, of which one is installed.
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu", "openvino")


def installed_version(package: str) -> str | None:
    """Return a package's version, which is not imported for it; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
