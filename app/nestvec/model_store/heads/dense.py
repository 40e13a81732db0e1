"""Layers behind the pooling: sentence-transformers' `Dense`, `LayerNorm` and `Normalize`, Perplexity's quantizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights, weight_files
from nestvec.export.layers.graph_heads import (
    Dense,
    Layer,
    RowNorm,
    Tangent,
    UnitLength,
    check_activation,
    export_rows,
    read_dense,
)
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
# sentence-transformers takes an activation of another package for its default.
TORCH: Final = "torch."
FLAGS: Final[Mapping[str, bool]] = {"bias": True, "use_residual": False}
NORM_EPSILON: Final = 1e-5  # torch's default, which the LayerNorm module takes
WITH_WEIGHTS: Final = ("Dense", "LayerNorm")
# Perplexity's `FlexibleQuantizer`: a tangent, whose values are given out in 127 steps to either side.
TANH_QUANTIZER: Final = "TanhQuantizer"
TANH_STEP: Final = 1 / 127
# What a module reads and writes, unless its config.json says another name.
NAMED_VECTOR: Final = "sentence_embedding"
NAME_FIELDS: Final = ("module_input_name", "module_output_name")


@dataclass(frozen=True, slots=True)
class DenseHead(Head):
    """A head of layers behind the pooling.

    Attributes:
        steps: Kind and folder of each module, in order: "Dense", "LayerNorm", "Normalize" or "TanhQuantizer".
    """

    steps: tuple[tuple[str, Path], ...] = ()

    @property
    @override
    def dimensions(self) -> int:
        """Output size of the last dense layer, or of the pooling where there is none."""
        return self.layers_size

    @property
    def layers_size(self) -> int:
        """Width of what the layers give."""
        dense = self._dense()
        return dense_sizes(dense[-1])[1] if dense else self.pooled_size

    @property
    @override
    def own_code_step(self) -> float | None:
        """That of a quantizer at the end."""
        return TANH_STEP if self.steps and self.steps[-1][0] == TANH_QUANTIZER else None

    @override
    def write(self, artefact: Path) -> None:
        """Write the layers as one graph, [B, modes * H] to [B, D].

        Raises:
            FormatError: A layer cannot be read, or its sizes do not fit its neighbour's.
            OSError: The disk is full or read-only.
        """
        export_rows(self.read_layers(), artefact / HEAD_FILE, width=self.pooled_size)

    def read_layers(self) -> list[Layer]:
        """Read all layers.

        Raises:
            FormatError: A layer cannot be read, or its sizes do not fit its neighbour's.
        """
        width = self.pooled_size
        layers: list[Layer] = []
        for kind, folder in self.steps:
            layer = _read_layer(kind, folder, width)
            if isinstance(layer, Dense):
                width = _width_behind(layer, width, folder)
            layers.append(layer)
        return layers

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled vectors through the layers."""
        return Pooler(self.pooling, head=open_rows(artefact / HEAD_FILE, open_backend))

    @override
    def summary(self) -> dict[str, Any]:
        """Return the settings of every dense layer, and the kinds of all where there are others."""
        settings = [read_json(folder / "config.json") for folder in self._dense()]
        kinds = [kind for kind, _ in self.steps]
        own = {"dense": settings} | ({} if set(kinds) == {"Dense"} else {"layers": kinds})
        return {**Head.summary(self), **own}

    def _dense(self) -> list[Path]:
        """Return the folders of the dense layers."""
        return [folder for kind, folder in self.steps if kind == "Dense"]


def check_names(folder: Path) -> None:
    """Check that a module behind the pooling takes the vector and gives it.

    Raises:
        FormatError: Its config.json names another value.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    config = read_json(path)
    for field in NAME_FIELDS:
        if config.get(field) not in (None, NAMED_VECTOR):
            raise FormatError(
                f"{path}: {field}: '{config[field]}' is not supported behind a pooling, only '{NAMED_VECTOR}'"
            )


def layer_files(kind: str, folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a module; none for a kind that has no weights.

    Raises:
        FormatError: It should have some, and has none that can be read.
    """
    return dense_files(folder) if kind in WITH_WEIGHTS else ()


def read_projection(folders: Sequence[Path], width: int) -> list[Dense]:
    """Read Dense modules that follow each other, of which the first takes rows of a width.

    Raises:
        FormatError: One cannot be read, or its sizes do not fit its neighbour's.
    """
    layers = []
    for folder in folders:
        layers.append(read_module(folder))
        width = _width_behind(layers[-1], width, folder)
    return layers


def _width_behind(layer: Dense, width: int, folder: Path) -> int:
    """Return the width of what a layer gives.

    Raises:
        FormatError: It does not take what it is given.
    """
    if len(layer.weight) != width:
        raise FormatError(
            f"{folder}/config.json: in_features: {len(layer.weight)} do not fit the {width} values before it"
        )
    return len(layer.bias)


def _read_layer(kind: str, folder: Path, width: int) -> Layer:
    """Read a module of any kind, which takes rows of a width."""
    if kind == "Normalize":
        return UnitLength()
    if kind == TANH_QUANTIZER:
        return Tangent()
    if kind == "Dense":
        return read_module(folder)
    with Weights(folder) as weights:
        scale, bias = (weights.get(f"norm.{name}", (width,)) for name in ("weight", "bias"))
    return RowNorm(scale, bias, NORM_EPSILON)


def dense_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a Dense module.

    Raises:
        FormatError: It has none that can be read.
    """
    files = weight_files(folder)
    if not files:
        raise FormatError(f"{folder}: no model.safetensors and no pytorch_model.bin")
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
        FormatError: It has an unknown activation, or a tensor is missing or of another shape.
    """
    path = folder / "config.json"
    config = read_json(path)
    class_name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = class_name.rsplit(".", 1)[-1]
    if name not in ACTIVATIONS or not class_name.startswith(TORCH):
        raise FormatError(f"{path}: activation_function '{class_name}' is not supported")
    act = check_activation(ACTIVATIONS[name], str(path))
    width, out = dense_sizes(folder)
    flags = {field: config.get(field, default) for field, default in FLAGS.items()}
    for field, value in flags.items():
        if not isinstance(value, bool):
            raise FormatError(f"{path}: {field} must be true or false")
    with Weights(folder) as weights:
        layer = read_dense(weights, ["linear"], width, out, act=act, needs_bias=flags["bias"])
        if not flags["use_residual"]:
            return layer
        if width == out:
            return replace(layer, residual=True)
        return replace(layer, residual=weights.get("residual.weight", (out, width)).T)
