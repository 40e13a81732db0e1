"""Cutting, renormalizing and converting vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.vectors.postprocess import convert, degenerate_rows, finish
from nestvec.engine.vectors.quantization import Quantizer

WORKED = np.array([[0.6, 0.8, -0.5, 0.25]], np.float32)


@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        (None, [0.523723, 0.698297, -0.436436, 0.218218]),
        (3, [0.536656, 0.715542, -0.447214]),
        (2, [0.6, 0.8]),
        (1, [1.0]),
    ],
)
def test_finish_gives_values_worked_out_by_hand(
    dimensions: int | None, expected: list[float]
) -> None:
    """Vectors are cut first and then renormalized, to values worked out by hand."""
    finished = finish(WORKED, dimensions=dimensions, normalize=True)
    np.testing.assert_allclose(finished, [expected], atol=1e-6)
    assert finished.dtype == np.float32


@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(1, 16))
def test_a_cut_vector_is_the_renormalized_prefix_of_the_full_one(
    seed: int, dimensions: int
) -> None:
    """The vector at k dimensions equals the renormalized first k values of the full unit vector."""
    raw = np.random.default_rng(seed).standard_normal((3, 16)).astype(np.float32) * 7
    full = finish(raw, dimensions=None, normalize=True)
    cut = finish(raw, dimensions=dimensions, normalize=True)
    prefix = full[:, :dimensions].astype(np.float64)
    prefix /= np.linalg.norm(prefix, axis=1, keepdims=True)
    np.testing.assert_allclose(cut, prefix, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)


def test_raw_output_is_not_scaled() -> None:
    """Without normalization values pass through, cut or not."""
    np.testing.assert_array_equal(finish(WORKED, dimensions=2, normalize=False), WORKED[:, :2])


def test_a_zero_prefix_stays_finite() -> None:
    """A prefix of zeros divides by the guard, not by zero."""
    finished = finish(np.array([[0.0, 0.0, 1.0]], np.float32), dimensions=2, normalize=True)
    np.testing.assert_array_equal(finished, [[0.0, 0.0]])


@pytest.mark.parametrize("dimensions", [0, -1, 5])
def test_dimensions_out_of_range_are_refused(dimensions: int) -> None:
    """Dimensions outside 1 to H are refused."""
    with pytest.raises(ValueError, match="1 to 4"):
        finish(WORKED, dimensions=dimensions, normalize=True)


def test_degenerate_rows_are_marked() -> None:
    """Rows with NaN or infinity and rows of zeros are marked; a plain row is not."""
    rows = np.array([[1, 0], [np.nan, 1], [np.inf, 1], [0, 0], [-1, 2]], np.float32)
    assert degenerate_rows(rows).tolist() == [False, True, True, True, False]


def test_bits_are_packed_as_clients_unpack_them() -> None:
    """The bits 01001101 are 77, and 128 less as a signed byte; the value zero gives no bit."""
    vector = np.array([[-0.1, 0.2, 0.0, -0.3, 0.4, 0.5, -0.6, 0.7]], np.float32)
    assert convert(vector, OutputDtype.UBINARY, Quantizer()).tolist() == [[77]]
    assert convert(vector, OutputDtype.BINARY, Quantizer()).tolist() == [[-51]]
    assert convert(vector, OutputDtype.FLOAT16, Quantizer()).dtype == np.float16
    with pytest.raises(ValueError, match="multiple of 8"):
        convert(vector[:, :5], OutputDtype.BINARY, Quantizer())
