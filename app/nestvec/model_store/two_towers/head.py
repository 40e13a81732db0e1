"""What stands behind a tower of texts: nothing, as its graph projects each state; the last token's is the vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from nestvec.engine.types import OutputKind
from nestvec.errors import FormatError
from nestvec.export.two_towers.config import TWO_TOWER_TYPES
from nestvec.model_store.heads.base import Head

LAST_TOKEN = "last_token"  # noqa: S105 - a pooling


@dataclass(frozen=True, slots=True)
class TowerHead(Head):
    """The head of a model of two towers: one vector for a text or a picture, and no early exits."""

    @property
    @override
    def has_exits(self) -> bool:
        """Whether a run may stop at an early layer: pictures have a tower of their own, whose layers are others."""
        return False

    @override
    def summary(self) -> dict[str, Any]:
        """Return that texts are pooled and projected as in models of two towers."""
        return {"two_towers": True}


def read_clip_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> TowerHead | None:
    """Return the head of CLIP and SigLIP; None for any other model.

    Args:
        folder: The folder of its encoder, for messages.
        config: Its config.json.
        hidden_size: Width of its vectors.
        modules: The kinds of the modules of its chain.

    Raises:
        FormatError: The module chain has more than the model and a norm.
    """
    if str(config.get("model_type")) not in TWO_TOWER_TYPES:
        return None
    check_chain(folder, modules)
    return TowerHead(folder, config, hidden_size, LAST_TOKEN, kinds=(OutputKind.DENSE,))


def check_chain(folder: Path, modules: Sequence[str]) -> None:
    """Refuse a module chain that has more than a model of two towers and a norm.

    Raises:
        FormatError: It has; names the module.
    """
    others = [kind for kind in modules if kind not in ("Transformer", "Normalize")]
    if others:
        raise FormatError(
            f"{folder}: modules.json: '{others[0]}' behind a model of two towers is not supported"
        )
