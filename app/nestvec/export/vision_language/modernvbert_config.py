"""What the graphs of ColModernVBERT are built from, out of the nested fields of a config.json.

Source: ModernVBERT (arXiv:2510.01149); names and defaults as in transformers' configuration_colmodernvbert.py,
configuration_modernvbert.py and the configurations of ModernBERT and SigLIP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import part, positive, with_defaults
from nestvec.export.families.modernbert import ModernBertConfig
from nestvec.export.graph.weights import Weights, common_prefix
from nestvec.export.two_towers.config import VISION_DEFAULTS, VisionSizes, siglip_vision_sizes

COLMODERNVBERT: Final = "colmodernvbert"
VLM_TYPE: Final = "modernvbert"
TEXT_TYPE: Final = "modernbert"
VISION_TYPES: Final = ("siglip_vision_model", "siglip")
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "max_position_embeddings": 8192,
}
SHUFFLE_FACTOR: Final = 4
EMBEDDING_DIM: Final = 128
IMAGE_TOKEN_ID: Final = 50407
# Names of tensors: under transformers' class, and under the authors' own.
PREFIXES: Final = ("vlm.", "model.", "")
TEXT_MODEL: Final = "text_model."
CONNECTOR: Final = "connector.modality_projection"
PATCH_EMBEDDING: Final = "embeddings.patch_embedding.weight"
VISION_PREFIXES: Final = ("vision_model.", "vision_model.vision_model.")


@dataclass(frozen=True, slots=True)
class ModernVBertSizes:
    """What both graphs depend on.

    Attributes:
        text: The encoder of texts, and of the rows of pictures among them.
        vision: The tower of square tiles.
        shuffle_factor: So many rows and columns of patches make a token, f.
        embedding_dim: Dimensions of a token's vector.
        image_token_id: The id that stands for a row of a picture in the library.
    """

    text: ModernBertConfig
    vision: VisionSizes
    shuffle_factor: int
    embedding_dim: int
    image_token_id: int

    @property
    def tile_tokens(self) -> int:
        """Number of tokens of a tile."""
        return (self.vision.side_patches // self.shuffle_factor) ** 2


def read_sizes(config: Mapping[str, Any]) -> ModernVBertSizes:
    """Read all sizes from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    parts = vlm_fields(config)
    vision = siglip_vision_sizes(_part(parts, "vision_config", VISION_TYPES))
    factor = positive(parts, "pixel_shuffle_factor", SHUFFLE_FACTOR)
    if vision.side_patches % factor:
        raise FormatError(
            f"config.json: 'pixel_shuffle_factor' must divide the {vision.side_patches} patches of a side"
        )
    return ModernVBertSizes(
        text=ModernBertConfig.read(text_fields(config)),
        vision=vision,
        shuffle_factor=factor,
        embedding_dim=positive(config, "embedding_dim", EMBEDDING_DIM),
        image_token_id=positive(parts, "image_token_id", IMAGE_TOKEN_ID),
    )


def text_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the encoder of texts, with the defaults of its class.

    Raises:
        FormatError: They are no object, or of another class.
    """
    return {**TEXT_DEFAULTS, **_part(vlm_fields(config), "text_config", (TEXT_TYPE,))}


def vlm_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the model that reads pictures and texts: older files have them at the top.

    Raises:
        FormatError: They are no object, or of another class.
    """
    if config.get("vlm_config") is None:
        return config
    fields = part(config, "vlm_config")
    if fields.get("model_type") not in (None, VLM_TYPE):
        raise FormatError(f"config.json: 'model_type' of 'vlm_config' must be {VLM_TYPE!r}")
    return fields


def part_fields() -> Mapping[str, tuple[str, ...]]:
    """Return the fields that are read of each part, by the part's path; older files have both parts at the top."""
    rotary = ("rope_theta", "rope_scaling", "rope_parameters", "layer_types", "local_rope_theta")
    sliding = ("global_rope_theta", "global_attn_every_n_layers", "local_attention")
    text = (*TEXT_DEFAULTS, *rotary, *sliding, "norm_eps", "hidden_activation")
    vision = (*VISION_DEFAULTS["siglip"], "num_channels", "vision_use_head")
    own = ("text_config", "vision_config", "pixel_shuffle_factor", "image_token_id")
    return {
        "vlm_config": own,
        **{f"{start}text_config": text for start in ("", "vlm_config.")},
        **{f"{start}vision_config": vision for start in ("", "vlm_config.")},
    }


def checkpoint_prefix(weights: Weights) -> str:
    """Return what stands before the names of tower, connector and encoder in a checkpoint.

    Raises:
        FormatError: It holds no such model.
    """
    return common_prefix(weights, f"{TEXT_MODEL}final_norm.weight", PREFIXES)


def _part(fields: Mapping[str, Any], name: str, model_types: tuple[str, ...]) -> Mapping[str, Any]:
    values = part(fields, name)
    if values.get("model_type") not in (None, *model_types):
        # Older files name another repository, whose fields they lack.
        raise FormatError(
            f"config.json: 'model_type' of '{name}' must be {model_types[0]!r}, as transformers 5 writes it"
        )
    return with_defaults(values, {})
