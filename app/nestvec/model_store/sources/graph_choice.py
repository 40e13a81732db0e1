"""Which graph of a folder is served, and from which of its weights it is made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES
from nestvec.export.graph.own_graph import ONNX_PATHS, own_graph_files
from nestvec.export.graph.tensor_files import is_pickle
from nestvec.export.graph.weights import weight_files

PICKLES_OFF: Final = (
    "its weights are a torch checkpoint (a pickle) only, and read_pickles is off: "
    "set it, or bring model.safetensors"
)


def choose_graph(
    folder: Path, architecture: str, *, reads_pickles: bool = True, needs_states: bool = False
) -> tuple[str | None, Layout, tuple[Path, ...]]:
    """Choose our export where we can, else the folder's own graph.

    Args:
        folder: The encoder's folder.
        architecture: The family's name.
        reads_pickles: Whether weights in torch's own format are read.
        needs_states: Whether what stands behind the encoder needs states that no graph of the folder's own gives: then
            torch's own format is taken before it.

    Returns:
        The folder's own graph (None for our export), its layout, and the files whose content decides the vectors.

    Raises:
        FormatError: There is neither; says what would do.
    """
    files = weight_files(folder, reads_pickles=reads_pickles)
    is_exported = architecture in ARCHITECTURES and bool(files)
    if is_exported and (needs_states or not is_pickle(files[0])):
        return None, Layout.PACKED, files
    for name in ONNX_PATHS:
        if (folder / name).is_file():
            return name, Layout.PADDED, own_graph_files(folder / name)
    if is_exported:
        return None, Layout.PACKED, files
    if not files and weight_files(folder):
        raise FormatError(f"{folder}: {PICKLES_OFF}")
    if not files:
        raise FormatError(
            f"{folder}: no model.safetensors, no pytorch_model.bin and no ONNX graph such as {ONNX_PATHS[0]}"
        )
    raise FormatError(
        f"{folder}/config.json: model_type '{architecture}' is not one the exporter knows "
        f"({', '.join(ARCHITECTURES)}), and there is no {ONNX_PATHS[0]} to serve instead"
    )


def refuse_pickles(folders: Sequence[Path]) -> None:
    """Refuse modules behind an encoder whose weights are in torch's own format.

    Args:
        folders: The modules'.

    Raises:
        FormatError: One's are; names its folder.
    """
    for folder in folders:
        if any(map(is_pickle, weight_files(folder))):
            raise FormatError(f"{folder}: {PICKLES_OFF}")
