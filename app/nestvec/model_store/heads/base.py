"""What every head says of itself, and the plainest one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Outputs
from nestvec.export.layers.heads import Tail, first_and_last

FIRST_LAST: Final = "first_last_mean"
HEAD_FILE: Final = "head.onnx"


@dataclass(frozen=True, slots=True)
class Head:
    """A head that leaves states as they are: pooled, or token by token.

    Attributes:
        folder: The model's.
        config: Its config.json.
        hidden_size: Columns of the encoder's states.
        pooling: Key of `pooling.POOLINGS`.
        kinds: What the model gives.
        labels: Of a classifier.
        activation: What makes probabilities of its scores.
        late_interaction: How token vectors are made.
        prompts: Names that its own code knows beside the folder's prompts.
        asks_types: Whether the graph must know a pair's second text.
        files: Weights beside the encoder's.
    """

    folder: Path
    config: Mapping[str, Any]
    hidden_size: int
    pooling: str
    kinds: tuple[OutputKind, ...] = (OutputKind.DENSE, OutputKind.TOKENS)
    labels: tuple[str, ...] = ()
    activation: str = "identity"
    late_interaction: LateInteraction | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    asks_types: bool = False
    files: tuple[Path, ...] = ()

    @property
    def dimensions(self) -> int:
        """Of the vectors given, or the number of labels."""
        return self.hidden_size

    @property
    def columns(self) -> int:
        """Of what the graph gives for each token."""
        return self.hidden_size

    def tail(self) -> Tail | None:
        """The end of the graph; None for states as they are.

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        return None

    def write(self, artefact: Path) -> None:
        """Write what stands behind the graph into an artefact's folder.

        Raises:
            FormatError: A tensor is missing or of another shape.
            OSError: The disk is full or read-only.
        """

    def outputs(self, artefact: Path, open_backend: BackendFactory) -> Outputs:
        """Open what was written.

        Args:
            artefact: Where.
            open_backend: Opens graphs.

        Raises:
            FormatError: It cannot be opened.
        """
        del artefact, open_backend
        return Outputs(self.pooling)

    def summary(self) -> dict[str, Any]:
        """What of it decides vectors, for the space's fingerprint; nothing for the plain head."""
        return {}


@dataclass(frozen=True, slots=True)
class FirstLastHead(Head):
    """Pools the mean of the first layer's states and the last's."""

    @override
    def tail(self) -> Tail | None:
        """See `Head`."""
        return first_and_last

    @override
    def summary(self) -> dict[str, Any]:
        """See `Head`."""
        return {"states": FIRST_LAST}
