"""What each word of a table counts: by how rare it is in a corpus, or as a file says.

Source: A Simple but Tough-to-Beat Baseline for Sentence Embeddings (Arora et al., ICLR 2017), section 3: a word of
probability p weighs a / (a + p), a = 0.001. The common component that it takes away then stays here.
IDF is ln((1 + n) / (1 + n_w)) + 1 for a word in n_w of n texts.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.model_store.word_tables.byte_reader import open_reader
from nestvec.model_store.word_tables.source_table import MAX_WORD_BYTES

SIF_A: Final = 1e-3
TEXTS_AT_ONCE: Final = 1000
FIELDS: Final = 2


class Weighting(StrEnum):
    """How words are weighed."""

    IDF = "idf"
    SIF = "sif"


def corpus_weights(
    weighting: Weighting, texts: Iterable[str], library: LibraryTokenizer, rows: int
) -> FloatArray:
    """Weigh words by a corpus; rows that are no words weigh what a word does that it lacks.

    Args:
        weighting: How.
        texts: The corpus.
        library: The table's tokenizer, whose ids are the rows of words.
        rows: Number of rows of the table.

    Returns:
        A weight for each row, (rows,), float32.

    Raises:
        FormatError: The corpus has no word.
    """
    counts, texts_with = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    number = 0
    iterator = iter(texts)
    while part := list(itertools.islice(iterator, TEXTS_AT_ONCE)):
        number += len(part)
        for encoding in library.encode_batch_fast(part, add_special_tokens=False):
            found, times = np.unique(np.asarray(encoding.ids, np.int64), return_counts=True)
            counts[found] += times
            texts_with[found] += 1
    if not counts.sum():
        raise FormatError("the corpus for the weights has no word")
    if weighting is Weighting.SIF:
        return sif_weights(counts, int(counts.sum()))
    # What the tokenizer does not know is no one word: it weighs as one that no text has.
    texts_with[0] = 0
    weights: FloatArray = (np.log((1 + number) / (1 + texts_with)) + 1).astype(np.float32)
    return weights


def sif_weights(counts: NDArray[np.int64], total: int) -> FloatArray:
    """Weigh words by how often each was counted, (n,), of so many in all."""
    counted = counts.copy()
    counted[0] = 0
    weights: FloatArray = (SIF_A / (SIF_A + counted / max(total, 1))).astype(np.float32)
    return weights


def file_weights(path: Path, vocabulary: Mapping[str, int], rows: int) -> FloatArray:
    """Read weights from lines of a word and a number; words that it lacks weigh 1.

    Returns:
        A weight for each row, (rows,), float32.

    Raises:
        FormatError: A line is no word and number, or has none of at least 0; names it. Or no word is of the table.
    """
    weights: FloatArray = np.ones(rows, np.float32)
    number = known = 0
    with open_reader(path) as reader:
        while (line := reader.line(MAX_WORD_BYTES, number + 1)) is not None:
            number += 1
            if not line.strip():
                continue
            row, weight = _weight(line, f"{path}: line {number}", vocabulary)
            if row is not None:
                weights[row] = weight
                known += 1
    if not known:
        raise FormatError(f"{path}: none of its words is in the table")
    return weights


def _weight(line: bytes, where: str, vocabulary: Mapping[str, int]) -> tuple[int | None, float]:
    """Read a line of a word and its weight; None for a word that the table lacks."""
    fields = line.rsplit(None, 1)
    try:
        weight = float(fields[-1])
        word = fields[0].decode().strip()
    except ValueError:
        weight, word = math.nan, ""
    limit = float(np.finfo(np.float32).max)
    if len(fields) != FIELDS or not 0 <= weight <= limit:
        raise FormatError(f"{where}: not a word and a weight of at least 0")
    return vocabulary.get(word), weight
