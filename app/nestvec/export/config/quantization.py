"""How a checkpoint's weights are quantised, as `quantization_config` of config.json says: read back, or refused.

Sources: transformers' quantization_config.py (`CompressedTensorsConfig`, `FineGrainedFP8Config`); the format of
https://github.com/vllm-project/compressed-tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError

FIELDS: Final = ("quantization_config", "compression_config")
COMPRESSED: Final = "compressed-tensors"
FP8: Final = "fp8"
# Formats of compressed-tensors that keep one number of 8 bits for each weight.
FORMATS: Final = ("int-quantized", "float-quantized", "naive-quantized")
STRATEGIES: Final = ("tensor", "channel", "group", "block")
BITS: Final = 8
WAY_OUT: Final = "take the model's own float checkpoint"


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are stored in 8 bits, each group with a scale of its own.

    Attributes:
        block: Rows and columns of a weight that share a scale; None where a scale is of a tensor or of a row.
    """

    block: tuple[int, int] | None = None


def read_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """Read how weights are quantised; None for a checkpoint of floats.

    Only weights are read back: activations stay floats, whatever a checkpoint says of them, as that is a way to compute
    and not a part of the model.

    Raises:
        FormatError: They are quantised in a way that cannot be read back; names the field.
    """
    for field in FIELDS:
        settings = config.get(field)
        if settings is None:
            continue
        if not isinstance(settings, dict):
            raise FormatError(f"config.json: '{field}' must be an object")
        method = settings.get("quant_method", COMPRESSED if field == FIELDS[1] else None)
        if method == COMPRESSED:
            return Quantization(_compressed_block(field, settings))
        if method == FP8:
            name = f"{field}.weight_block_size"
            return Quantization(_block(name, settings.get("weight_block_size")))
        raise FormatError(
            f"config.json: '{field}.quant_method' {method!r} is not supported; known: {COMPRESSED} and {FP8}, "
            f"with 8 bits a weight; {WAY_OUT}"
        )
    return None


def _compressed_block(field: str, settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read the block of compressed-tensors' groups, which must agree."""
    layout = settings.get("format", FORMATS[0])
    if layout not in FORMATS:
        raise FormatError(
            f"config.json: '{field}.format' {layout!r} is not supported; known: {', '.join(FORMATS)}; {WAY_OUT}"
        )
    for name in ("transform_config", "sparsity_config"):
        part = settings.get(name)
        is_dense = isinstance(part, dict) and part.get("format") == "dense"
        if part and not is_dense:
            raise FormatError(f"config.json: '{field}.{name}' is not supported; {WAY_OUT}")
    groups = settings.get("config_groups") or {}
    if not isinstance(groups, dict) or not all(isinstance(g, dict) for g in groups.values()):
        raise FormatError(f"config.json: '{field}.config_groups' must be an object of objects")
    for name, group in groups.items():
        if group.get("format") not in (None, *FORMATS):
            raise FormatError(
                f"config.json: '{field}.config_groups.{name}.format' {group['format']!r} is not supported; {WAY_OUT}"
            )
    blocks = {
        _group_block(f"{field}.config_groups.{name}.weights", group["weights"])
        for name, group in groups.items()
        if group.get("weights") is not None
    } - {None}
    if len(blocks) > 1:
        raise FormatError(
            f"config.json: '{field}.config_groups' has several sizes of blocks; {WAY_OUT}"
        )
    return next(iter(blocks), None)


def _group_block(name: str, weights: object) -> tuple[int, int] | None:
    """Read the block of one group; None where a scale is of a tensor or of a row."""
    if not isinstance(weights, dict):
        raise FormatError(f"config.json: '{name}' must be an object")
    expected: Mapping[str, tuple[object, ...]] = {
        "num_bits": (BITS,),
        "type": ("int", "float"),
        "strategy": STRATEGIES,
        "actorder": (None,),
    }
    for field, known in expected.items():
        value = weights.get(field, known[0])
        if value not in known or isinstance(value, bool):
            raise FormatError(
                f"config.json: '{name}.{field}' {value!r} is not supported; "
                f"known: {', '.join(map(str, known))}; {WAY_OUT}"
            )
    if weights.get("strategy") == "group":
        return _block(f"{name}.group_size", [1, weights.get("group_size")])
    if weights.get("strategy") == "block":
        return _block(f"{name}.block_structure", weights.get("block_structure"))
    return None


def _block(name: str, value: object) -> tuple[int, int] | None:
    """Read rows and columns of a block; None where there are none."""
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2  # noqa: PLR2004 - rows and columns
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    ):
        raise FormatError(f"config.json: '{name}' must be positive numbers of rows and columns")
    return int(value[0]), int(value[1])
