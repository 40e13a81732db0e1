"""Checkpoints: a model's tensors as a whole, and new model folders written from them."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from safetensors.numpy import save_file

from nestvec.errors import ArtefactError, FormatError
from nestvec.export.config.quantization import WAY_OUT, read_quantization
from nestvec.export.graph.weights import INDEX_FILE, SINGLE_FILE, Weights, weight_files
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.system.json_files import read_json

PROVENANCE: Final = "nestvec.json"
Tensors = dict[str, NDArray[Any]]


def read_tensors(folder: Path) -> Tensors:
    """Read all tensors of a model, in their own dtypes.

    Raises:
        FormatError: It has none, they are unreadable, or they are quantised: sums of quantised numbers mean nothing.
    """
    path = folder / "config.json"
    if path.is_file() and read_quantization(read_json(path)) is not None:
        raise FormatError(
            f"{path}: 'quantization_config': quantised weights cannot be merged; {WAY_OUT}"
        )
    files = weight_files(folder, reads_pickles=False)
    if not files:
        raise FormatError(f"{folder}: no {SINGLE_FILE} (pickled weights are not merged)")
    with Weights(folder, files) as weights:
        return {name: weights.raw(name) for name in weights.names()}


def weight_hashes(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each safetensors file of a folder, by its name."""
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def write_checkpoint(
    base: Path, tensors: Tensors, out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write a model folder of new tensors and another's other files, without pickles and graphs: they hold old weights.

    Args:
        base: The folder whose tokenizer and settings are copied.
        tensors: All tensors of the new model.
        out: The new folder.
        provenance: What it was made of, kept in `nestvec.json`.

    Raises:
        ArtefactError: The folder exists or cannot be written.
    """
    with new_folder(out):
        for path in sorted(base.rglob("*.json")):
            relative = path.relative_to(base)
            if relative.name == INDEX_FILE or relative.parts[0].startswith("."):
                continue
            (out / relative.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / relative)
        for path in base.glob("*/*.safetensors"):
            relative = path.relative_to(base)
            (out / relative.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / relative)
        save_file(tensors, out / SINGLE_FILE, metadata={"format": "pt"})
        (out / PROVENANCE).write_text(json.dumps(provenance, indent=1), "utf-8")


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make a folder that is gone again where what writes into it fails.

    Raises:
        ArtefactError: It exists, or cannot be written.
    """
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise ArtefactError(f"{out}: exists already") from None
    except OSError as error:
        raise ArtefactError(f"{out}: cannot be made ({error.strerror})") from error
    try:
        yield
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise ArtefactError(f"{out}: cannot be written ({error.strerror})") from error
        raise
