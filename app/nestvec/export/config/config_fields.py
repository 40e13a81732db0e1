"""Fields of a config.json, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from nestvec.errors import FormatError


def positive(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive integer.

    Raises:
        FormatError: It is missing where there is no default, or something else.
    """
    found = config.get(name)
    if found is None and default is not None:
        found = default
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FormatError(f"config.json: '{name}' is missing or not a positive integer")
    return found


def positive_number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A positive number.

    Raises:
        FormatError: Something else.
    """
    found = config.get(name)
    if found is None:
        found = default
    if not isinstance(found, int | float) or isinstance(found, bool) or not found > 0:
        raise FormatError(f"config.json: '{name}' must be a positive number")
    return float(found)


def sliding_layers(config: Mapping[str, Any], default: Sequence[bool]) -> tuple[bool, ...]:
    """Of each layer, whether it sees a window only, as `layer_types` says.

    Args:
        config: The file's content.
        default: Where it does not say.

    Raises:
        FormatError: It says something else, or of another number of layers.
    """
    kinds = config.get("layer_types")
    if kinds is None:
        return tuple(default)
    known = {"sliding_attention": True, "full_attention": False}
    if not isinstance(kinds, list) or not all(isinstance(k, str) and k in known for k in kinds):
        raise FormatError("config.json: 'layer_types' must be a list of full or sliding attention")
    if len(kinds) != len(default):
        raise FormatError(f"config.json: 'layer_types' must say it of {len(default)} layers")
    return tuple(known[kind] for kind in kinds)
