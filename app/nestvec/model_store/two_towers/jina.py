"""What a folder of jina-clip says of its vectors: layers behind the texts' pooling, prompts, and pictures.

Source: `hf_model.py`, `modeling_clip.py` and `processing_clip.py` of jinaai/jina-clip-implementation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.pictures.fitting import FittedTower
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import with_defaults
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import Dense, export_rows, read_dense
from nestvec.export.two_towers.jina_clip import (
    has_projections,
    projected_size,
    read_jina_text,
    read_jina_vision,
)
from nestvec.export.two_towers.jina_picture_graph import export_jina_pictures
from nestvec.model_store.heads.base import HEAD_FILE
from nestvec.model_store.two_towers.head import TowerHead
from nestvec.model_store.two_towers.picture_settings import (
    CLIP_MEAN,
    CLIP_STD,
    MIN_TOKENS,
    PictureSettings,
    pixel_scale,
    processor_fields,
    square_side,
)

PROCESSOR: Final = "JinaCLIPImageProcessor"
DEFAULTS: Final[Mapping[str, Any]] = {
    "size": 224,
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "fill_color": 0,
}
RESIZE_MODES: Final = ("shortest", "longest", "squash")
# Pillow's numbers; "random" is for training, and bicubic in use.
FILTERS: Final = {"bicubic": 3, "bilinear": 2, "random": 3}
MAX_BYTE: Final = 255
QUERY: Final = "query"  # what dialects call the prompt of queries
QUERY_TASK: Final = "retrieval.query"


@dataclass(frozen=True, slots=True)
class JinaHead(TowerHead):
    """The head of jina-clip's texts: pooled states, and what the folder has of projections behind them."""

    @property
    @override
    def dimensions(self) -> int:
        """Dimensions of the vectors given."""
        return projected_size(self.config)

    @property
    @override
    def trained_dimensions(self) -> tuple[int, ...]:
        """Those of `matryoshka_dimensions`."""
        value = self.config.get("matryoshka_dimensions") or []
        if not isinstance(value, list) or not all(
            type(size) is int and 0 < size <= self.dimensions for size in value
        ):
            raise FormatError(
                f"config.json: 'matryoshka_dimensions' must be numbers up to {self.dimensions}"
            )
        return tuple(value)

    @override
    def write(self, artefact: Path) -> None:
        """Write the layers behind the pooling as one graph, [B, H] to [B, D]; nothing where there are none.

        Raises:
            FormatError: A tensor is missing or of another shape.
            OSError: The disk is full or read-only.
        """
        if layers := self._layers():
            export_rows(layers, artefact / HEAD_FILE, width=self.pooled_size)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled vectors through the layers."""
        if not (artefact / HEAD_FILE).is_file():
            return Pooler(self.pooling)
        return Pooler(self.pooling, head=open_rows(artefact / HEAD_FILE, open_backend))

    def _layers(self) -> list[Dense]:
        """Read the layers behind the pooling."""
        tower, width = read_jina_text(self.config), self.pooled_size
        needs_bias = tower.has_projection_bias
        layers = []
        if not tower.projection and not has_projections(self.config):
            return []
        with Weights(self.folder) as weights:

            def add(name: str, columns: int, rows: int, act: str = "", *, bias: bool) -> None:
                if not bias and f"{name}.bias" in weights:
                    raise FormatError(f"tensor '{name}.bias' is there, and config.json says none")
                layer = read_dense(weights, [name], columns, rows, act=act, needs_bias=bias)
                layers.append(layer)

            if tower.projection == "linear":
                add("text_model.proj", width, tower.embed_dim, bias=needs_bias)
            elif tower.projection == "mlp":
                inner = (width + tower.embed_dim) // 2
                add("text_model.proj.0", width, inner, "gelu", bias=needs_bias)
                add("text_model.proj.2", inner, tower.embed_dim, bias=needs_bias)
            if has_projections(self.config):
                add("text_projection", tower.embed_dim, self.dimensions, bias=False)
        return layers


def read_jina_head(folder: Path, config: Mapping[str, Any], hidden_size: int) -> JinaHead:
    """Return the head of jina-clip's texts, whose prompts are the instructions of its tasks.

    Args:
        folder: The folder of its encoder.
        config: Its config.json.
        hidden_size: Width of the encoder's states.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    tower = read_jina_text(config)
    prompts = dict(tower.instructions)
    if QUERY_TASK in prompts:
        prompts.setdefault(QUERY, prompts[QUERY_TASK])
    kinds = (OutputKind.DENSE,)
    return JinaHead(folder, config, hidden_size, tower.pooling, kinds=kinds, prompts=prompts)


@dataclass(frozen=True, slots=True)
class JinaPictures(PictureSettings):
    """How jina-clip takes pictures."""

    tower: PictureTower

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures.

        Raises:
            FormatError: Configuration and weights do not fit each other.
            OSError: The disk is full or read-only.
        """
        export_jina_pictures(folder, config, self.scale, path, on_tensor)

    @override
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        tower = self.tower
        # Without `super()`, which a class with slots does not find.
        summary = PictureSettings.summary(self)
        if isinstance(tower, FittedTower):
            summary |= {"fits_longer": tower.fits_longer, "fill": tower.fill}
        return summary


def read_jina_pictures(folder: Path, config: Mapping[str, Any]) -> JinaPictures | None:
    """Read how jina-clip takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    if fields is None:
        return None
    if fields.get("image_processor_type") not in (None, PROCESSOR):
        raise FormatError(f"{path}: image_processor_type: must be {PROCESSOR}")
    values = with_defaults(fields, DEFAULTS)
    sizes = read_jina_vision(config)
    side = square_side(path, "size", _pair(values["size"]))
    if side != sizes.image_size:
        raise FormatError(
            f"{path}: size: pictures would have {side} pixels a side, and config.json says {sizes.image_size}"
        )
    for name, known in (("resize_mode", RESIZE_MODES), ("interpolation", tuple(FILTERS))):
        if values[name] not in known:
            raise FormatError(f"{path}: {name} must be one of {', '.join(known)}")
    fill = values["fill_color"]
    if type(fill) is not int or not 0 <= fill <= MAX_BYTE:
        raise FormatError(f"{path}: fill_color must be 0 to {MAX_BYTE}")
    if sizes.tokens < MIN_TOKENS:
        raise FormatError(f"config.json: 'patch_size' leaves fewer than {MIN_TOKENS} patches")
    tower = FittedTower(
        size=side,
        tokens=sizes.tokens,
        is_square=values["resize_mode"] == "squash",
        resized_side=side,
        resample=FILTERS[values["interpolation"]],
        token_cost=sizes.work / read_jina_text(config).work,
        fits_longer=values["resize_mode"] == "longest",
        fill=fill,
    )
    return JinaPictures(tower, pixel_scale(path, values["mean"], values["std"]))


def _pair(size: object) -> object:
    """Return a size as height and width, where it is a list of them."""
    if isinstance(size, list) and len(size) == 2:  # noqa: PLR2004 - height and width
        return {"height": size[0], "width": size[1]}
    return size
