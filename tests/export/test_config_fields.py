"""Fields of config.json: numbers that no model has are refused by name, before anything is computed of them."""

import pytest
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.layers.rotary_frequencies import read_frequencies


@pytest.mark.parametrize("value", [1e300, float("inf"), 10**400])
def test_a_base_that_is_no_float32_is_refused(value: float) -> None:
    """The base of rotary positions is computed with in float32, where it would overflow."""
    with pytest.raises(FormatError, match="'rope_theta' is more than 1e"):
        read_frequencies({"rope_theta": value}, 8)


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan")])
def test_what_is_no_positive_number_is_refused(value: object) -> None:
    """The message names the field."""
    with pytest.raises(FormatError, match="'eps' must be a positive number"):
        positive_number({"eps": value}, "eps", 1.0)


def test_sizes_beyond_any_model_are_refused() -> None:
    """They would take the machine's memory before the weights are seen to be smaller."""
    with pytest.raises(FormatError, match="'hidden_size' is more than"):
        positive({"hidden_size": 10**9}, "hidden_size")
