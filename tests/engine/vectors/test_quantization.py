"""8-bit codes: worked values to the byte, clipping, and ranges that follow the dimensions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.vectors.postprocess import convert, finish
from nestvec.engine.vectors.quantization import CodeRanges, Quantizer, Rounding, offset_by_128
from numpy.typing import NDArray

LOW = np.array([-0.5, -0.5, 0.0, 0.1])
HIGH = np.array([0.5, 0.3, 1.0, 0.1])


def with_ranges(rounding: Rounding = Rounding.DOWN) -> Quantizer:
    """Make a quantizer with the ranges of the worked example."""
    quantizer = Quantizer(rounding=rounding)
    quantizer._ranges[4] = CodeRanges(LOW, HIGH)
    return quantizer


@pytest.mark.parametrize(
    ("values", "uint8", "int8"),
    [
        ([-0.5, 0.1, 0.25, 0.1], [0, 191, 63, 0], [-128, 63, -65, -128]),
        ([0.5, 0.3, 1.0, 0.1], [255, 255, 255, 0], [127, 127, 127, -128]),
        ([0.6, -0.7, 1.2, 0.0], [255, 0, 255, 0], [127, -128, 127, -128]),
    ],
)
def test_codes_are_those_worked_out_by_hand(
    values: list[float], uint8: list[int], int8: list[int]
) -> None:
    """Codes are clipped, the same for both types, and 0 for a dimension without a range."""
    vectors = np.array([values], np.float32)
    assert with_ranges().uint8(vectors).tolist() == [uint8]
    assert with_ranges().int8(vectors).tolist() == [int8]


def test_sentence_transformers_rounds_towards_zero() -> None:
    """Their int8 and uint8 disagree below the middle; values outside the ranges are clipped all the same."""
    quantizer = with_ranges(Rounding.TOWARDS_ZERO)
    vectors = np.array([[-0.5, 0.1, 0.25, 0.1], [0.6, -0.7, 1.2, 0.0]], np.float32)
    assert quantizer.uint8(vectors).tolist() == [[0, 191, 63, 0], [255, 0, 255, 0]]
    assert quantizer.int8(vectors)[:, :3].tolist() == [[-128, 63, -64], [127, -128, 127]]


def unit(seed: int, count: int, width: int) -> NDArray[np.float32]:
    """Make random unit vectors."""
    raw = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return finish(raw, dimensions=None, normalize=True)


def cut_to(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float64]:
    """Cut and renormalize vectors, in float64."""
    cut = vectors[:, :dimensions].astype(np.float64)
    unit_rows: NDArray[np.float64] = cut / np.sqrt((cut**2).sum(axis=1))[:, None]
    return unit_rows


@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(1, 16))
def test_int8_is_a_rounded_multiple_of_the_value(seed: int, dimensions: int) -> None:
    """int8 is 127 times the value over the farthest that calibration reached; uint8 is 128 more."""
    known = unit(seed, 30, 16)
    vectors = finish(unit(seed + 1, 5, 16), dimensions=dimensions, normalize=True)
    exact = 127 * vectors.astype(np.float64) / np.abs(cut_to(known, dimensions)).max()
    quantizer = Quantizer(known, "texts")
    codes = quantizer.int8(vectors)
    off = np.abs(codes - np.clip(exact, -128, 127))
    assert off.max() <= 0.5 + 2e-3
    np.testing.assert_array_equal(quantizer.uint8(vectors), codes.astype(int) + 128)
    assert (quantizer.int8(np.zeros((1, dimensions), np.float32)) == 0).all()


@given(seed=st.integers(0, 2**32 - 1), dimensions=st.integers(1, 16))
def test_sentence_transformers_has_a_range_for_each_dimension(seed: int, dimensions: int) -> None:
    """Rounding towards zero follows sentence-transformers' own definition, but clips."""
    known = unit(seed, 30, 16)
    vectors = finish(unit(seed + 1, 5, 16), dimensions=dimensions, normalize=True)
    cut = cut_to(known, dimensions)
    low, step = cut.min(axis=0), (cut.max(axis=0) - cut.min(axis=0)) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        positions = np.clip(np.where(step == 0, 0, (vectors - low) / step), 0, 255)
    quantizer = Quantizer(known, "texts", Rounding.TOWARDS_ZERO)
    # A position that lies on a step may fall to either side, for the order of the operations.
    for codes, expected in (
        (quantizer.uint8(vectors), np.trunc(positions)),
        (quantizer.int8(vectors), np.trunc(positions - 128)),
    ):
        off = np.abs(codes.astype(int) - expected)
        settled = np.abs(positions - np.round(positions)) > 1e-9
        assert (off[settled] == 0).all()
        assert off.max() <= 1


@given(seed=st.integers(0, 2**32 - 1))
def test_codes_give_the_values_back(seed: int) -> None:
    """Codes give values within the range back, to half a step."""
    vectors = unit(seed, 40, 24)
    quantizer = Quantizer(vectors, "texts")
    step = float(np.abs(vectors).max()) / 127
    assert (np.abs(quantizer.int8(vectors) * step - vectors) <= 0.502 * step).all()
    assert quantizer.clipped_share(vectors) < 0.01


def test_a_code_does_not_depend_on_its_batch() -> None:
    """Ranges never come from the vectors at hand, so a code does not depend on its batch."""
    quantizer, vectors = Quantizer(unit(1, 50, 8), "texts"), unit(2, 6, 8)
    alone = np.concatenate([quantizer.int8(vectors[i : i + 1]) for i in range(6)])
    np.testing.assert_array_equal(alone, quantizer.int8(vectors))


def test_without_calibration_a_formula_serves() -> None:
    """Without calibration the range is symmetric, as wide as a random unit vector spreads, and named so."""
    quantizer = Quantizer()
    ranges = quantizer.ranges(49)
    np.testing.assert_allclose(ranges.high, 0.5)
    np.testing.assert_allclose(ranges.low, -0.5)
    assert (quantizer.source, quantizer.id) == ("formula", "formula-3.5")


def test_ids_tell_ranges_apart() -> None:
    """Ranges of other vectors or another rounding have another id."""
    other = Quantizer(unit(1, 9, 8), rounding=Rounding.TOWARDS_ZERO)
    quantizers = [Quantizer(unit(1, 9, 8)), Quantizer(unit(2, 9, 8)), other]
    assert len({quantizer.id for quantizer in quantizers}) == 3
    assert Quantizer(unit(1, 9, 8)).id == quantizers[0].id


def test_many_dimensions_do_not_pile_up() -> None:
    """The ranges kept are bounded, though each request may ask for other dimensions."""
    quantizer = Quantizer(unit(1, 9, 200))
    for dimensions in range(1, 200):
        quantizer.ranges(dimensions)
    assert len(quantizer._ranges) <= 64


@pytest.mark.parametrize(
    ("bits", "ubinary", "binary"),
    [("00000000", 0, -128), ("01001101", 77, -51), ("10000000", 128, 0), ("11111111", 255, 127)],
)
def test_bits_are_those_worked_out_by_hand(bits: str, ubinary: int, binary: int) -> None:
    """The first value is the highest bit; signed bytes are 128 lower, not reinterpreted."""
    vectors = np.array([[0.1 if bit == "1" else -0.1 for bit in bits]], np.float32)
    assert convert(vectors, OutputDtype.UBINARY, Quantizer()).tolist() == [[ubinary]]
    assert convert(vectors, OutputDtype.BINARY, Quantizer()).tolist() == [[binary]]
    assert offset_by_128(np.array([ubinary], np.uint8)).tolist() == [binary]


@pytest.mark.parametrize(
    ("dtype", "values", "raw"),
    [
        (OutputDtype.FLOAT32, [1, -2], "0000803f000000c0"),
        (OutputDtype.FLOAT16, [1, -2], "003c00c0"),
        (OutputDtype.BFLOAT16, [1, -2], "803f00c0"),
        (OutputDtype.FLOAT8_E4M3, [1, -2], "38c0"),
        (OutputDtype.FLOAT8_E5M2, [1, -2], "3cc0"),
    ],
)
def test_floats_have_the_bytes_worked_out_by_hand(
    dtype: OutputDtype, values: list[float], raw: str
) -> None:
    """Floats are given out little-endian."""
    converted = convert(np.array([values], np.float32), dtype, Quantizer())
    assert converted.tobytes().hex() == raw
    assert converted.dtype == dtype.storage_dtype
