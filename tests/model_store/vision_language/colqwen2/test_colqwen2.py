"""ColQwen2 against transformers: from the bytes of files, and texts, to vectors that are compared one by one."""

import numpy as np
import pytest

from tests.model_store.vision_language.colqwen2.inputs import TOKENS, VECTORS, input_of
from tests.model_store.vision_language.colqwen2.models import INPUTS
from tests.model_store.vision_language.conftest import Embed

TOLERANCE = 1e-5


def test_vectors_equal_those_of_transformers(tokens_of: Embed) -> None:
    """Queries and pictures, all in one call: vectors and tokens are transformers'."""
    result = tokens_of(*map(input_of, INPUTS))
    assert list(result.rows) == list(result.input_tokens) == [TOKENS[name] for name in INPUTS]
    for name, rows in zip(INPUTS, result.by_input(result.vectors), strict=True):
        assert np.abs(rows - VECTORS[name]).max() < TOLERANCE, name


@pytest.mark.parametrize("name", ["a red apple", "", "@wide", "@exif-6"])
def test_an_input_alone_equals_it_among_others(tokens_of: Embed, name: str) -> None:
    """What an input is batched with changes nothing of its vectors."""
    assert np.abs(tokens_of(input_of(name)).vectors - VECTORS[name]).max() < TOLERANCE
