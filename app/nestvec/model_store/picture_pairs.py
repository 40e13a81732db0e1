"""Two checkpoints of one space: a model of pictures beside the model of texts that it was trained to agree with.

Source: Nomic Embed Vision (arXiv:2406.18587), trained beside nomic-embed-text, whose weights stayed what they were.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.graph.weights import Weights, weight_files
from nestvec.export.layers.graph_heads import RowNorm, export_rows
from nestvec.export.two_towers.nomic_picture_graph import export_nomic_pictures
from nestvec.export.two_towers.nomic_vision import NAME, is_nomic_vision, read_nomic_vision
from nestvec.model_store.folder.model_folder import ModelFolder
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.model_store.sources.file_names import PREPROCESSOR_FILE
from nestvec.model_store.two_towers.picture_settings import PictureSettings, read_processor
from nestvec.system.json_files import read_json

NORM_EPSILON: Final = 1e-5  # torch's default
CONFIG_FILE: Final = "config.json"
MATRIX: Final = 2  # axes
PROCESSOR_FAMILY: Final = "clip"


@dataclass(frozen=True, slots=True)
class PairedPictures(PictureSettings):
    """How a model of pictures beside one of texts takes them.

    Attributes:
        config: Its config.json.
    """

    config: Mapping[str, Any] = field(default_factory=dict)

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures, of its own folder's weights.

        Raises:
            FormatError: Configuration and weights do not fit each other.
            OSError: The disk is full or read-only.
        """
        export_nomic_pictures(self.source or folder, self.config, self.scale, path, on_tensor)

    @override
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        # Without `super()`, which a class with slots does not find.
        return {**PictureSettings.summary(self), "config": dict(self.config)}


@dataclass(frozen=True, slots=True)
class NormedHead(Head):
    """A head of texts whose pooled vectors go through a layer norm without weights.

    nomic-embed-text-v1.5 was trained with one behind its pooling, and nomic-embed-vision-v1.5 beside it; whoever
    leaves it out, as sentence-transformers does, gets almost the same directions.
    """

    @override
    def write(self, artefact: Path) -> None:
        """Write the norm as a graph, [B, H] to [B, H].

        Raises:
            OSError: The disk is full or read-only.
        """
        size = self.pooled_size
        norm = RowNorm(np.ones(size, np.float32), np.zeros(size, np.float32), NORM_EPSILON)
        export_rows([norm], artefact / HEAD_FILE, width=size)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled vectors through the norm."""
        return Pooler(self.pooling, head=open_rows(artefact / HEAD_FILE, open_backend))

    @override
    def summary(self) -> dict[str, Any]:
        """Return that vectors are normed, and what else of the head decides them."""
        return {**Head.summary(self), "layer_norm": True}


def with_pictures(
    folder: ModelFolder, pictures: Path, *, norms_texts: bool = False, reads_pickles: bool = True
) -> ModelFolder:
    """Put a model of pictures beside a model of texts.

    Args:
        folder: The model of texts.
        pictures: The folder of the model of pictures.
        norms_texts: Whether texts' vectors go through a layer norm, as the model of pictures was trained beside it.
        reads_pickles: Whether weights in torch's own format are read.

    Raises:
        FormatError: The two cannot be one model; names what is wrong with either.
    """
    _check_texts(folder)
    path = pictures / CONFIG_FILE
    config = read_json(path)
    if not is_nomic_vision(config):
        raise FormatError(f"{path}: architectures: a picture_model must be a {NAME}")
    try:
        sizes = read_nomic_vision(config)
    except FormatError as error:
        raise FormatError(f"{pictures}/{error.message}") from error
    if sizes.hidden_size != folder.head.dimensions:
        raise FormatError(
            f"{path}: n_embd: vectors of pictures have {sizes.hidden_size} dimensions, those of texts "
            f"{folder.head.dimensions}"
        )
    processor = read_processor(pictures, PROCESSOR_FAMILY)
    if processor is None:
        raise FormatError(
            f"{pictures}: no {PREPROCESSOR_FILE}, which says how pictures are resized"
        )
    files = weight_files(pictures, reads_pickles=reads_pickles)
    tower = processor.tower(sizes, sizes.work / _work(folder))
    paired = PairedPictures(tower, processor.scale(), pictures, files, config)
    head = folder.head
    if norms_texts:
        if type(head) is not Head:
            raise FormatError(
                f"{folder.path}: layer_norm_beside_pictures goes with a pooling alone, and it has more behind it"
            )
        head = NormedHead(**{each.name: getattr(head, each.name) for each in fields(head)})
    return replace(folder, head=head, pictures=paired)


def _check_texts(folder: ModelFolder) -> None:
    """Refuse a model that cannot have another one's pictures beside it.

    Raises:
        FormatError: Says why.
    """
    if folder.pictures is not None:
        raise FormatError(f"{folder.path}: takes pictures by itself, without a picture_model")
    if folder.onnx_file is not None or folder.architecture == STATIC_TYPE:
        raise FormatError(
            f"{folder.path}: a picture_model goes with models that are exported from safetensors"
        )
    if folder.chat is not None:
        raise FormatError(
            f"{folder.path}: reads texts in messages, which no picture_model was trained beside"
        )
    if OutputKind.DENSE not in folder.head.kinds:
        raise FormatError(f"{folder.path}: gives no vectors of texts, and so has no picture_model")


def _work(folder: ModelFolder) -> float:
    """Return what a token of a text costs, up to a factor: the products of the layers, without tables of words."""
    with Weights(folder.path) as weights:
        shapes = [weights.shape(name) for name in weights.names()]
    layers = [shape for shape in shapes if len(shape) == MATRIX]
    return float(sum(prod(shape) for shape in layers if shape[0] != folder.vocabulary_size)) or 1.0
