"""Dense layers behind the pooling: sentence-transformers' `Dense` modules."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights, weight_files
from nestvec.export.layers.graph_heads import Dense, check_activation, export_rows, read_dense
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.system.json_files import read_json

# By the last part of torch's class name.
ACTIVATIONS: Final[Mapping[str, str]] = {
    "Identity": "",
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


@dataclass(frozen=True, slots=True)
class DenseHead(Head):
    """A head of one or several dense layers behind the pooling.

    Attributes:
        modules: Folders of the Dense modules, in order.
    """

    modules: tuple[Path, ...] = ()

    @property
    @override
    def dimensions(self) -> int:
        """Output size of the last layer."""
        return dense_sizes(self.modules[-1])[1]

    @override
    def write(self, artefact: Path) -> None:
        """Write the layers as one graph, [B, H] to [B, D].

        Raises:
            FormatError: A layer cannot be read, or its sizes do not fit its neighbour's.
            OSError: The disk is full or read-only.
        """
        layers = [read_module(folder) for folder in self.modules]
        for layer, following in itertools.pairwise(layers):
            if layer.weight.shape[1] != following.weight.shape[0]:
                raise FormatError(f"{self.folder}: its Dense modules do not fit each other")
        if len(layers[0].weight) != self.hidden_size:
            raise FormatError(
                f"{self.modules[0]}: takes {len(layers[0].weight)} values, the model gives {self.hidden_size}"
            )
        export_rows(layers, artefact / HEAD_FILE)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled vectors through the layers."""
        return Pooler(self.pooling, head=open_rows(artefact / HEAD_FILE, open_backend))

    @override
    def summary(self) -> dict[str, Any]:
        """Return the settings of every layer."""
        return {"dense": [read_json(folder / "config.json") for folder in self.modules]}


def dense_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a Dense module.

    Raises:
        FormatError: It has none that can be read.
    """
    files = weight_files(folder)
    if not files:
        raise FormatError(f"{folder}: no model.safetensors (pickled weights are never read)")
    return files


def dense_sizes(folder: Path) -> tuple[int, int]:
    """Return the sizes of a Dense module's input and output.

    Raises:
        FormatError: Its config.json does not say them.
    """
    path = folder / "config.json"
    config = read_json(path)
    sizes = config.get("in_features"), config.get("out_features")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise FormatError(f"{path}: 'in_features' and 'out_features' must be positive integers")
    return int(config["in_features"]), int(config["out_features"])


def read_module(folder: Path) -> Dense:
    """Read a Dense module.

    Raises:
        FormatError: It has an unknown activation or a residual, or a tensor is missing or of another shape.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("use_residual"):
        raise FormatError(f"{path}: 'use_residual' is not supported")
    class_name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = class_name.rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise FormatError(f"{path}: activation_function '{class_name}' is not supported")
    act = check_activation(ACTIVATIONS[name], str(path))
    width, out = dense_sizes(folder)
    with Weights(folder) as weights:
        return read_dense(
            weights, ["linear"], width, out, act=act, needs_bias=config.get("bias") is not False
        )
