"""Sparse codes of dense vectors: sentence-transformers' SparseAutoEncoder (CSR).

Source: Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation (arXiv:2503.01776); `SparseAutoEncoder`
of sentence-transformers 5.7 and 6.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import Dense, Layer, Standardized, export_rows
from nestvec.model_store.heads.base import HEAD_FILE
from nestvec.model_store.heads.dense import DenseHead, dense_files
from nestvec.system.json_files import read_json

DEVIATION_EPSILON: Final = 1e-5  # as the library's own `LN` has it
# Encoder and decoder share a matrix, which is saved once, by the first name.
TIED: Final = ("decoder.linear.weight", "encoder.weight")
# Fields with the library's defaults.
SIZES: Final[Mapping[str, int]] = {"hidden_dim": 512, "k": 8}


@dataclass(frozen=True, slots=True)
class AutoEncoderHead(DenseHead):
    """A head that gives the greatest few of a pooled vector's many latent values, as weights of terms.

    Attributes:
        module: Folder of the SparseAutoEncoder.
    """

    module: Path = Path()

    @property
    @override
    def dimensions(self) -> int:
        """Number of latents."""
        return self._size("hidden_dim")

    @property
    @override
    def has_exits(self) -> bool:
        """Whether a run may stop at an early layer: it may not."""
        return False

    @override
    def write(self, artefact: Path) -> None:
        """Write the layers as one graph, [B, modes * H] to [B, latents].

        Raises:
            FormatError: A layer cannot be read, or its sizes do not fit its neighbour's.
            OSError: The disk is full or read-only.
        """
        export_rows(
            [*self.read_layers(), *self._encoder()], artefact / HEAD_FILE, width=self.pooled_size
        )

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled vectors through the layers, and knows how many latents count."""
        latents = open_rows(artefact / HEAD_FILE, open_backend)
        return Pooler(self.pooling, latent_head=latents, active_latents=self._size("k"))

    @override
    def summary(self) -> dict[str, Any]:
        """Return the settings of every layer and of the autoencoder."""
        return {**DenseHead.summary(self), "autoencoder": read_json(self.module / "config.json")}

    def _encoder(self) -> list[Layer]:
        """Read the encoder, whose bias has what is taken away before: W(x - b) + c = Wx + (c - Wb)."""
        path = self.module / "config.json"
        normalizes = read_json(path).get("normalize", False)
        if not isinstance(normalizes, bool):
            raise FormatError(f"{path}: normalize must be true or false")
        with Weights(self.module) as weights:
            width = weights.shape("pre_bias")[0]
            if width != self.layers_size:
                raise FormatError(
                    f"{path}: input_dim: {width} do not fit the {self.layers_size} values before it"
                )
            name = next((name for name in TIED if name in weights), TIED[0])
            weight = weights.get(name, (self.dimensions, width)).T
            before = weights.get("pre_bias", (width,)).astype(np.float64) @ weight.astype(
                np.float64
            )
            bias = weights.get("latent_bias", (self.dimensions,)) - before
        layer = Dense(weight, bias.astype(np.float32))
        return [Standardized(DEVIATION_EPSILON), layer] if normalizes else [layer]

    def _size(self, field: str) -> int:
        """Return a size of the module's settings."""
        path = self.module / "config.json"
        size = read_json(path).get(field, SIZES[field])
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise FormatError(f"{path}: {field} must be a positive integer")
        return size


def read_autoencoder(dense: DenseHead, module: Path) -> AutoEncoderHead:
    """Read the head of a chain that ends in a SparseAutoEncoder.

    Args:
        dense: The head of what stands before it.
        module: The module's folder.

    Raises:
        FormatError: It has no weights that can be read.
    """
    return AutoEncoderHead(
        dense.folder,
        dense.config,
        dense.hidden_size,
        dense.pooling,
        kinds=(OutputKind.SPARSE,),
        layer_weights=dense.layer_weights,
        files=(*dense.files, *dense_files(module)),
        steps=dense.steps,
        module=module,
    )
