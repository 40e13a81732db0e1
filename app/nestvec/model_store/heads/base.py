"""The base of all heads, which is also the plainest one: it leaves the encoder's states as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.model_spec import QueryLookup
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import FloatArray, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.pooling import pooling_modes
from nestvec.engine.vectors.token_vectors import TokenPooling
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import GraphHead, first_last_average, weighted_states
from nestvec.model_store.sources.file_names import MODEL_FILE
from nestvec.system.json_files import read_json

FIRST_LAYER: Final = 4  # of WeightedLayerPooling, unless it says another
FIRST_LAST: Final = "first_last_mean"
HEAD_FILE: Final = "head.onnx"
# Prompts of models whose queries and documents differ by more than a text before them.
ROLES: Final[Mapping[str, str]] = {"query": "", "document": ""}


@dataclass(frozen=True, slots=True)
class Head:
    """A head that gives the encoder's states as they are: pooled, or token by token.

    Attributes:
        folder: The model's folder.
        config: Its config.json.
        hidden_size: Columns of the encoder's states, H.
        pooling: Key of `pooling.POOLINGS`, or several with `pooling.JOINT` between them.
        kinds: Outputs that the model can give.
        labels: A classifier's labels, in the order of its scores.
        activation: What makes probabilities of the scores: "sigmoid", "softmax" or "identity".
        late_interaction: How token vectors that are compared one by one are made; None where they are plain states.
        token_pooling: How the model itself merges like token vectors; None where it does not.
        query_lookup: How queries are weighed by stored weights alone; None where they go through the model.
        prompts: Prompts that the model's own code knows beside the folder's, by name.
        default_prompt: Name of that of them which is used where neither a call nor the folder names one; None for none.
        layer_weights: Folder of a WeightedLayerPooling, whose weighted mean of layers' states is pooled; None for the
            last layer's.
        takes_token_types: Whether the graph must be told which tokens belong to a pair's second text.
        files: Weight files beside the encoder's.
    """

    folder: Path
    config: Mapping[str, Any]
    hidden_size: int
    pooling: str
    kinds: tuple[OutputKind, ...] = (OutputKind.DENSE, OutputKind.TOKENS)
    labels: tuple[str, ...] = ()
    activation: str = "identity"
    late_interaction: LateInteraction | None = None
    token_pooling: TokenPooling | None = None
    query_lookup: QueryLookup | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    layer_weights: Path | None = None
    takes_token_types: bool = False
    files: tuple[Path, ...] = ()

    @property
    def dimensions(self) -> int:
        """Dimensions of the vectors given, or the number of labels."""
        return self.pooled_size

    @property
    def trained_dimensions(self) -> tuple[int, ...]:
        """Smaller numbers of dimensions that vectors were trained to be cut to, where the files say them.

        Raises:
            FormatError: The files say no such numbers.
        """
        return ()

    @property
    def own_code_step(self) -> float | None:
        """Distance of two codes of the model's own 8-bit vectors; None where ranges are calibrated."""
        return None

    @property
    def pooled_size(self) -> int:
        """Dimensions of a vector as pooling gives it: H for each mode."""
        return len(pooling_modes(self.pooling)) * self.hidden_size

    @property
    def has_exits(self) -> bool:
        """Whether a run may stop at an early layer: not where later ones are part of every vector."""
        return OutputKind.DENSE in self.kinds and self.layer_weights is None

    @property
    def columns(self) -> int:
        """Number of columns that the graph gives for each token."""
        return self.hidden_size

    def graph_head(self) -> GraphHead | None:
        """Return what the main graph computes behind the encoder; None for states as they are.

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        if self.layer_weights is None:
            return None
        return weighted_states(*read_layer_weights(self.layer_weights))

    def write(self, artefact: Path) -> None:
        """Write the head's own graph and tables into an artefact's folder; nothing where it has none.

        Raises:
            FormatError: A tensor is missing or of another shape.
            OSError: The disk is full or read-only.
        """

    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Open what `write` wrote, and return how outputs are made from the graph's states.

        Args:
            artefact: The artefact's folder.
            open_backend: Opens graphs.

        Raises:
            FormatError: A file cannot be opened.
        """
        del artefact, open_backend
        return Pooler(self.pooling)

    def summary(self) -> dict[str, Any]:
        """Return what of the head decides vectors, for the space's fingerprint; nothing for the plain head."""
        if self.layer_weights is None:
            return {}
        return {"layer_weights": read_json(self.layer_weights / "config.json")}


def read_layer_weights(folder: Path) -> tuple[FloatArray, int]:
    """Read a WeightedLayerPooling module: the layers' weights, [layers], and the index of the first one's states.

    Raises:
        FormatError: Its settings or weights cannot be read.
    """
    path = folder / "config.json"
    first = read_json(path).get("layer_start", FIRST_LAYER)
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise FormatError(f"{path}: layer_start must be a number of layers")
    with Weights(folder) as weights:
        return weights.get("layer_weights", weights.shape("layer_weights")), first


def check_layer_weights(folder: Path, layers: int) -> None:
    """Check that a WeightedLayerPooling fits an encoder.

    Args:
        folder: The module's folder.
        layers: Number of the encoder's layers, before which the word embeddings' states count too.

    Raises:
        FormatError: It has weights for more or fewer layers, or cannot be read.
    """
    weights, first = read_layer_weights(folder)
    if weights.shape != (layers + 1 - first,):
        raise FormatError(
            f"{folder}/config.json: layer_start: {weights.size} weights do not fit {layers} layers from {first} on"
        )


@dataclass(frozen=True, slots=True)
class FirstLastHead(Head):
    """A head that pools the mean of the first layer's states and the last's."""

    @override
    def graph_head(self) -> GraphHead | None:
        """Return the mean of the first layer's states and the last's, [T, H]."""
        return first_last_average

    @override
    def summary(self) -> dict[str, Any]:
        """Return which states are pooled."""
        return {"states": FIRST_LAST}


def read_model_settings(root: Path) -> Mapping[str, Any]:
    """Read what sentence-transformers says of a whole model; nothing where its folder has no such file.

    Raises:
        FormatError: The file cannot be read.
    """
    path = root / MODEL_FILE
    return read_json(path) if path.is_file() else {}


def read_prompts(
    folder: Path, overrides: Mapping[str, Any], *, is_foreign: bool = False
) -> tuple[dict[str, str], str | None]:
    """Return the folder's prompts by name, and the name of the default one.

    Args:
        folder: The model's folder.
        overrides: Of its card.
        is_foreign: Whether it is a StaticEmbedding's: the library writes names without texts into every folder, which
            are no prompts.

    Raises:
        FormatError: They are not names and texts, or the default one is not among them.
    """
    path, config = folder / MODEL_FILE, read_model_settings(folder)
    prompts = overrides.get("prompts", config.get("prompts") or {})
    if not isinstance(prompts, dict) or not all(
        isinstance(name, str) and isinstance(text, str) for name, text in prompts.items()
    ):
        raise FormatError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise FormatError(f"{path}: default_prompt_name '{default}' is not among its prompts")
    if is_foreign:
        prompts = {name: text for name, text in prompts.items() if text or name == default}
    return prompts, default
