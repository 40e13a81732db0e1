"""Counts of terms beside an artefact: read back as they were, and left out where they are not whole."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.vectors.term_table import TermTable, count_terms
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.term_counts import (
    FILE,
    load_term_table,
    read_term_table,
    store_term_table,
)

SIZE, SPACE = 9, "0123456789abcdef"


def counted() -> TermTable:
    """Return counts of two texts."""
    texts = [np.array(ids, np.int32) for ids in ([2, 5, 6, 3], [5, 8])]
    return count_terms(texts, SIZE, (2, 3), SPACE)


def test_counts_come_back_as_they_were(tmp_path: Path) -> None:
    """Counts, sizes, special ids and what they make are kept; where there are none, there are none."""
    assert load_term_table(tmp_path, SIZE, SPACE) is None
    table = counted()
    store_term_table(tmp_path, counted())
    read = load_term_table(tmp_path, SIZE, SPACE)
    assert read is not None
    np.testing.assert_array_equal(read.counts, table.counts)
    assert (read.documents, read.tokens, read.special_ids) == (2, 4, (2, 3))
    assert (read.source, read.space) == (SPACE, table.space)
    np.testing.assert_array_equal(read.idf, table.idf)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "damage",
    ["cut", "garbage", "empty", "shape", "negative", "too many", "fractions", "space", "tokens"],
)
def test_what_is_not_whole_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """There is a warning, and the model is served without its counts; a check says what is wrong."""
    changes: dict[str, dict[str, Any]] = {
        "shape": {"counts": np.zeros(SIZE + 1, np.int64)},
        "negative": {"counts": np.full(SIZE, -1)},
        "too many": {"counts": np.full(SIZE, 3)},
        "fractions": {"counts": np.full(SIZE, 0.5)},
        "space": {"source": "another"},
        "tokens": {"tokens": 1},
    }
    path = store_term_table(tmp_path, dataclasses.replace(counted(), **changes.get(damage, {})))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"PK\x03\x04" + b"x" * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert read_term_table(tmp_path, SIZE, SPACE) is None
    assert "left out" in caplog.text
    with pytest.raises(FormatError, match=r"term-counts\.npz"):
        load_term_table(tmp_path, SIZE, SPACE)
