"""The table of outputs: every kind has an adapter, and each knows which rows must never leave."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.outputs.adapters import ADAPTERS, model_words
from nestvec.engine.outputs.joint import JointOutput, joint_rows
from nestvec.engine.results import RawVectors
from nestvec.engine.types import EmbedCall, FloatArray, OutputKind
from nestvec.engine.vectors.quantization import Quantizer

from tests.support.served import SPEC


def test_every_kind_of_output_has_an_adapter() -> None:
    """A new member of `OutputKind` cannot be served without its adapter."""
    assert set(ADAPTERS) == set(OutputKind)


@pytest.mark.parametrize(
    ("kinds", "labels", "words"),
    [
        ((OutputKind.DENSE, OutputKind.TOKENS), (), "dense"),
        ((OutputKind.DENSE, OutputKind.SPARSE, OutputKind.TOKENS), (), "dense"),
        ((OutputKind.SPARSE,), (), "sparse"),
        ((OutputKind.TOKENS,), (), "a late-interaction model"),
        ((OutputKind.LABELS,), ("relevance",), "a re-ranker"),
        ((OutputKind.LABELS,), ("good", "bad"), "a classifier"),
    ],
)
def test_a_model_is_named_by_its_main_output(
    kinds: tuple[OutputKind, ...], labels: tuple[str, ...], words: str
) -> None:
    """Refusals say what a model is, by the first of its outputs in the table."""
    assert model_words(dataclasses.replace(SPEC, kinds=kinds, labels=labels)) == words


@pytest.mark.parametrize("kind", OutputKind)
def test_rows_that_are_not_finite_are_degenerate(kind: OutputKind) -> None:
    """NaN and infinity never leave; rows of zeros do not either, unless a score or weight may be 0."""
    rows = np.array([[1, 2], [np.nan, 1], [np.inf, 1], [0, 0]], np.float32)
    may_be_zero = kind in (OutputKind.SPARSE, OutputKind.LABELS)
    adapter = ADAPTERS[kind]
    assert adapter.are_degenerate(rows).tolist() == [False, True, True, not may_be_zero]
    of_static = adapter.are_degenerate(rows, allows_zeros=True).tolist()
    assert of_static == [False, True, True, False]


@given(st.data(), st.integers(1, 5), st.integers(1, 9), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_joint_rows_come_apart_as_they_went_together(
    data: st.DataObject, items: int, width: int, token_width: int
) -> None:
    """Whatever the widths and numbers of terms and tokens, each kind's rows are those that it makes alone."""
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    terms = [data.draw(st.integers(0, 12)) for _ in range(items)]
    lengths = [data.draw(st.integers(1, 5)) for _ in range(items)]
    wide = {
        OutputKind.DENSE: [generator.normal(size=(1, width)) for _ in range(items)],
        OutputKind.SPARSE: [generator.uniform(1, 2, (count, 2)) for count in terms],
        OutputKind.TOKENS: [generator.normal(size=(count, token_width)) for count in lengths],
    }
    made: dict[OutputKind, list[FloatArray]] = {
        kind: [row.astype(np.float32) for row in rows] for kind, rows in wide.items()
    }
    adapter = ADAPTERS[OutputKind.DENSE_SPARSE_TOKENS]
    assert isinstance(adapter, JointOutput)
    joined = [
        joint_rows({kind: rows[number] for kind, rows in made.items()}) for number in range(items)
    ]
    assert not any(adapter.are_degenerate(rows).any() for rows in joined)
    raw = RawVectors(np.concatenate(joined), tuple(map(len, joined)), 0.0, 0.0)
    finished = adapter.finish(raw, EmbedCall(()), Quantizer(), normalize=False)
    for kind, rows in made.items():
        part = finished.by_kind[kind]
        assert part.rows == tuple(map(len, rows))
        assert (part.vectors == np.concatenate(rows)).all()


def test_a_text_without_terms_is_no_failure() -> None:
    """A sparse item may have no row at all."""
    assert not ADAPTERS[OutputKind.SPARSE].are_degenerate(np.zeros((0, 2), np.float32)).any()
