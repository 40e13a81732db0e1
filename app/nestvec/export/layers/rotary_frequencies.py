"""Frequencies of rotary position embeddings, as trained or stretched to longer inputs.

Source: RoFormer (arXiv:2104.09864) for the plain ones; position interpolation (arXiv:2306.15595) for `linear`; YaRN
(arXiv:2309.00071); `llama3` as in transformers' modeling_rope_utils.py; `ntk` as in GTE's own code and in Text
Embeddings Inference.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.graph.types import Float32Array


@dataclass(frozen=True, slots=True)
class RotaryFrequencies:
    """How far each pair of a head rotates.

    Attributes:
        values: [d / 2], float32, in radians a position.
        scale: What cosines and sines are multiplied by (YaRN's attention factor).
    """

    values: Float32Array
    scale: float = 1.0


def read_frequencies(
    config: Mapping[str, Any], head_width: int, default_theta: float = 10_000.0
) -> RotaryFrequencies:
    """Take frequencies out of a config.json, by transformers 4's fields or transformers 5's.

    Args:
        config: The file's content, or the part of it that is about positions.
        head_width: d.
        default_theta: The family's base, for a file without one.

    Raises:
        FormatError: The kind of scaling is not supported, or its fields make no sense.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    theta = positive_number(rope if "rope_theta" in rope else config, "rope_theta", default_theta)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        raise FormatError(
            f"config.json: rope_type '{kind}' is not supported; known: {', '.join(ROPE_TYPES)}"
        )
    return ROPE_TYPES[kind](rope, theta, head_width)


def frequencies_by_layer_type(
    config: Mapping[str, Any],
    head_width: int,
    *,
    full: tuple[str, float],
    sliding: tuple[str, float],
) -> dict[bool, RotaryFrequencies]:
    """Take the frequencies of layers with full attention and of those with a sliding window out of a config.json.

    Args:
        config: The file's content; transformers 5 keeps both under `rope_parameters`.
        head_width: d.
        full: Transformers 4's name for the base of full attention, and the family's default.
        sliding: The same for sliding windows.

    Returns:
        Frequencies by whether a layer has a sliding window.

    Raises:
        FormatError: The kind of scaling is not supported, or its fields make no sense.
    """
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    frequencies = {}
    for is_sliding, layer_type, (name, default) in (
        (False, "full_attention", full),
        (True, "sliding_attention", sliding),
    ):
        fields: dict[str, Any] = {"rope_theta": positive_number(config, name, default)}
        if layer_type in rope:
            fields = {"rope_parameters": rope[layer_type]}
        elif not is_sliding:
            fields["rope_scaling"] = config.get("rope_scaling")
        frequencies[is_sliding] = read_frequencies(fields, head_width, default)
    return frequencies


def _plain(theta: float, width: int) -> Float32Array:
    """Compute theta ** (-2i / d) for each pair i, [d / 2]."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    values: Float32Array = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
    return values


def _default(rope: Mapping[str, Any], theta: float, width: int) -> RotaryFrequencies:
    del rope
    return RotaryFrequencies(_plain(theta, width))


def _linear(rope: Mapping[str, Any], theta: float, width: int) -> RotaryFrequencies:
    return RotaryFrequencies((_plain(theta, width) / _factor(rope)).astype(np.float32))


def _ntk(rope: Mapping[str, Any], theta: float, width: int) -> RotaryFrequencies:
    factor = _factor(rope)
    values = _plain(theta * factor, width) / factor ** (2 / width)
    return RotaryFrequencies(values.astype(np.float32))


def _llama3(rope: Mapping[str, Any], theta: float, width: int) -> RotaryFrequencies:
    """Keep fast pairs as they are, interpolate slow ones, with a ramp between."""
    factor = _factor(rope)
    low, high = _required(rope, "low_freq_factor"), _required(rope, "high_freq_factor")
    if high <= low:
        raise FormatError("config.json: 'high_freq_factor' must be above 'low_freq_factor'")
    trained_tokens = positive(rope, "original_max_position_embeddings")
    plain = _plain(theta, width).astype(np.float64)
    rotations = trained_tokens * plain / (2 * math.pi)
    plain_share = np.clip((rotations - low) / (high - low), 0, 1)
    values = (1 - plain_share) * plain / factor + plain_share * plain
    return RotaryFrequencies(values.astype(np.float32))


def _yarn(rope: Mapping[str, Any], theta: float, width: int) -> RotaryFrequencies:
    """Interpolate each pair by how often it rotates within the trained length."""
    factor = _factor(rope)
    trained_tokens = positive(rope, "original_max_position_embeddings")
    beta_fast = positive_number(rope, "beta_fast", 32.0)
    beta_slow = positive_number(rope, "beta_slow", 1.0)
    if theta <= 1:
        raise FormatError("config.json: 'rope_theta' must be above 1")

    def pair_with(rotations: float) -> float:
        """The pair, as a fraction, that rotates so often within the trained length."""
        return width * math.log(trained_tokens / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_with(beta_fast), pair_with(beta_slow)
    if rope.get("truncate", True) is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (np.arange(width // 2) - low) / max(high - low, 0.001)
    interpolated_share = np.clip(ramp, 0, 1)
    plain = _plain(theta, width).astype(np.float64)
    values = plain / factor * interpolated_share + plain * (1 - interpolated_share)
    return RotaryFrequencies(values.astype(np.float32), _yarn_scale(rope, factor))


def _yarn_scale(rope: Mapping[str, Any], factor: float) -> float:
    """What cosines and sines are multiplied by, so that attention stays as sharp as over the trained length."""
    if rope.get("attention_factor") is not None:
        return _required(rope, "attention_factor")

    def scale_of(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale_of(_required(rope, "mscale")) / scale_of(_required(rope, "mscale_all_dim"))
    return scale_of(1.0)


def _factor(rope: Mapping[str, Any]) -> float:
    """How many times the trained length the model is stretched to."""
    return _required(rope, "factor")


def _required(rope: Mapping[str, Any], name: str) -> float:
    """Read a positive number that must be there."""
    if rope.get(name) is None:
        raise FormatError(f"config.json: 'rope_parameters' lacks '{name}'")
    return positive_number(rope, name, 1.0)


ROPE_TYPES: Final[Mapping[str, Callable[[Mapping[str, Any], float, int], RotaryFrequencies]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "ntk": _ntk,
    "yarn": _yarn,
}
