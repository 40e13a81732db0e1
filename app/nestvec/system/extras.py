"""How a package that an extra brings is installed: in a checkout from its locks, elsewhere from the package index."""

from typing import Final

# The extras that no server lock holds; each has a lock of its own in requirements/.
LOCKED_APART: Final = (
    *("parquet", "quality", "sign", "documents", "otel", "languages", "images"),
    *("lancedb", "qdrant", "chroma", "faiss", "usearch", "hnswlib", "ray"),
)
# Locked apart too, and of use beside the extra for GPUs only.
OF_GPUS: Final = ("cudnn",)
# The extras that have a server lock of their own.
SERVER_LOCKS: Final = ("cpu", "gpu", "openvino")


def how_to_install(extra: str) -> str:
    """Return the commands that install an extra, for the message that its package is missing.

    Args:
        extra: Its name in pyproject.toml.
    """
    variable = f" EXTRAS={extra}" if extra in LOCKED_APART else ""
    if extra in OF_GPUS:
        variable = f" EXTRA=gpu EXTRAS={extra}"
    if extra in SERVER_LOCKS:
        variable = f" EXTRA={extra}"
    return f"`make setup{variable}` in a checkout, `pip install 'nestvec[{extra}]'` elsewhere"
