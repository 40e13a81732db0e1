"""Frequencies of rotary positions, as trained or stretched to longer inputs.

Source: RoFormer (arXiv:2104.09864) for the plain ones; position interpolation (arXiv:2306.15595) for `linear`; YaRN
(arXiv:2309.00071); `llama3` as in Llama 3.1; `ntk` as in GTE's own code and in Text Embeddings Inference.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How fast each pair of a head turns.

    Attributes:
        values: (d / 2,), float32, in radians a position.
        factor: What cosines and sines are multiplied by.
    """

    values: NDArray[np.float32]
    factor: float = 1.0


def read_frequencies(
    config: Mapping[str, Any], width: int, default_theta: float = 10_000.0
) -> Frequencies:
    """Take them out of a config.json, by its old fields or its new one.

    Args:
        config: The file's content, or as much of it as is about positions.
        width: Of a head, d.
        default_theta: The family's base where the file has none.

    Raises:
        FormatError: Positions are scaled in a way that we do not know, or by fields that make no sense.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    found = rope if "rope_theta" in rope else config
    theta = positive_number(found, "rope_theta", default_theta)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(
            f"config.json: rope_type '{kind}' is not supported; known: {', '.join(KINDS)}"
        )
    return KINDS[kind](rope, theta, width)


def frequencies_by_kind(
    config: Mapping[str, Any], width: int, *, full: tuple[str, float], sliding: tuple[str, float]
) -> dict[bool, Frequencies]:
    """Of layers that see everything (False) and of those that see a window (True).

    Args:
        config: The file's content; transformers 5 keeps both under `rope_parameters`.
        width: Of a head, d.
        full: Older name of the first kind's base, and the family's default.
        sliding: The same of the second kind.

    Raises:
        FormatError: As for `read_frequencies`.
    """
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    found = {}
    for slides, kind, (name, default) in (
        (False, "full_attention", full),
        (True, "sliding_attention", sliding),
    ):
        own: dict[str, Any] = {"rope_theta": positive_number(config, name, default)}
        if kind in rope:
            own = {"rope_parameters": rope[kind]}
        elif not slides:
            own["rope_scaling"] = config.get("rope_scaling")
        found[slides] = read_frequencies(own, width, default)
    return found


def _plain(theta: float, width: int) -> NDArray[np.float32]:
    steps = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    found: NDArray[np.float32] = (1.0 / np.float32(theta) ** steps).astype(np.float32)
    return found


def _default(rope: Mapping[str, Any], theta: float, width: int) -> Frequencies:
    del rope
    return Frequencies(_plain(theta, width))


def _linear(rope: Mapping[str, Any], theta: float, width: int) -> Frequencies:
    return Frequencies((_plain(theta, width) / _factor(rope)).astype(np.float32))


def _ntk(rope: Mapping[str, Any], theta: float, width: int) -> Frequencies:
    factor = _factor(rope)
    values = _plain(theta * factor, width) / factor ** (2 / width)
    return Frequencies(values.astype(np.float32))


def _llama3(rope: Mapping[str, Any], theta: float, width: int) -> Frequencies:
    """Fast pairs as they are, slow ones interpolated, a ramp between."""
    factor = _factor(rope)
    low, high = _needed(rope, "low_freq_factor"), _needed(rope, "high_freq_factor")
    if high <= low:
        raise FormatError("config.json: 'high_freq_factor' must be above 'low_freq_factor'")
    trained = positive(rope, "original_max_position_embeddings")
    plain = _plain(theta, width).astype(np.float64)
    turns = trained * plain / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return Frequencies(((1 - share) * plain / factor + share * plain).astype(np.float32))


def _yarn(rope: Mapping[str, Any], theta: float, width: int) -> Frequencies:
    """Interpolated by how often a pair turns within the trained length."""
    factor = _factor(rope)
    trained = positive(rope, "original_max_position_embeddings")
    fast = positive_number(rope, "beta_fast", 32.0)
    slow = positive_number(rope, "beta_slow", 1.0)

    if theta <= 1:
        raise FormatError("config.json: 'rope_theta' must be above 1")

    def pair_of(turns: float) -> float:
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_of(fast), pair_of(slow)
    if rope.get("truncate", True) is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (np.arange(width // 2) - low) / max(high - low, 0.001)
    interpolated = np.clip(ramp, 0, 1)
    plain = _plain(theta, width).astype(np.float64)
    values = plain / factor * interpolated + plain * (1 - interpolated)
    return Frequencies(values.astype(np.float32), _yarn_factor(rope, factor))


def _yarn_factor(rope: Mapping[str, Any], factor: float) -> float:
    if rope.get("attention_factor") is not None:
        return _needed(rope, "attention_factor")

    def of(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return of(_needed(rope, "mscale")) / of(_needed(rope, "mscale_all_dim"))
    return of(1.0)


def _factor(rope: Mapping[str, Any]) -> float:
    return _needed(rope, "factor")


def _needed(rope: Mapping[str, Any], name: str) -> float:
    """A positive number that must be there."""
    if rope.get(name) is None:
        raise FormatError(f"config.json: 'rope_parameters' lacks '{name}'")
    return positive_number(rope, name, 1.0)


KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], float, int], Frequencies]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "ntk": _ntk,
    "yarn": _yarn,
}
