"""Reads and checks fields of a model's config.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError

# No size of a model is near it; a file that says more would take the memory of the machine before it is refused.
MAX_SIZE: Final = 10**8
# Beyond it a product of two of them, such as a stretched base of rotary positions, is no float32.
MAX_NUMBER: Final = 1e18


class Overlaid(Mapping[str, Any]):
    """A config.json with other values for some fields, without a copy of it: what is asked for goes on to it.

    Args:
        own: The other values.
        config: The file's content.
    """

    def __init__(self, own: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._own = own
        self._config = config

    @override
    def __getitem__(self, name: str) -> Any:
        """Return a field's value."""
        return self._own[name] if name in self._own else self._config[name]

    @override
    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of fields."""
        return iter({**self._own, **self._config})

    @override
    def __len__(self) -> int:
        """Count the fields."""
        return len({**self._own, **self._config})


def part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the fields of a part of a config.json.

    Raises:
        FormatError: They are no object.
    """
    fields = config.get(name)
    if not isinstance(fields, dict):
        raise FormatError(f"config.json: '{name}' must be an object")
    return fields


def with_defaults(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields, and the defaults of their class for those that are not there, or null."""
    return {**defaults, **{name: value for name, value in fields.items() if value is not None}}


def boolean(config: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Read true or false; `default` where the field is missing or null.

    Raises:
        FormatError: The field is something else: a text such as "false" would count as true.
    """
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FormatError(f"config.json: '{name}' must be true or false")
    return value


def positive(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Read a positive integer.

    Args:
        config: The file's content.
        name: The field's name.
        default: The value where the field is missing or null; None where it must be there.

    Raises:
        FormatError: The field is missing without a default, or is not a positive integer.
    """
    value = config.get(name)
    if value is None and default is not None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FormatError(f"config.json: '{name}' is missing or not a positive integer")
    if value > MAX_SIZE:
        raise FormatError(f"config.json: '{name}' is more than {MAX_SIZE}")
    return value


def positive_number(config: Mapping[str, Any], name: str, default: float) -> float:
    """Read a positive number; `default` where it is missing or null.

    Raises:
        FormatError: The field is something else, or more than any model has.
    """
    value = config.get(name)
    if value is None:
        value = default
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise FormatError(f"config.json: '{name}' must be a positive number")
    if value > MAX_NUMBER:
        raise FormatError(f"config.json: '{name}' is more than {MAX_NUMBER:g}")
    return float(value)


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, object]) -> None:
    """Refuse a configuration that asks for what a graph does not have.

    Args:
        config: The file's content.
        fixed: The one value that each field may have, if it is there.

    Raises:
        FormatError: A field has another value; the message names the field.
    """
    for name, value in fixed.items():
        if config.get(name) not in (None, value):
            raise FormatError(f"config.json: '{name}' must be {value!r}")


def sliding_layers(config: Mapping[str, Any], default: Sequence[bool]) -> tuple[bool, ...]:
    """Which layers have sliding-window attention, as `layer_types` says.

    Args:
        config: The file's content.
        default: One value a layer, for a file without `layer_types`.

    Returns:
        For each layer, whether it sees a window only.

    Raises:
        FormatError: `layer_types` has other entries, or another number of layers.
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
