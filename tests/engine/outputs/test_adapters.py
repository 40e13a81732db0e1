"""The table of outputs: every kind has an adapter, and each knows which rows must never leave."""

import dataclasses

import numpy as np
import pytest
from nestvec.engine.outputs.adapters import ADAPTERS, model_words
from nestvec.engine.types import OutputKind

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


def test_a_text_without_terms_is_no_failure() -> None:
    """A sparse item may have no row at all."""
    assert not ADAPTERS[OutputKind.SPARSE].are_degenerate(np.zeros((0, 2), np.float32)).any()
