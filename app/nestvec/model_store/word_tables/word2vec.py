"""Tables of words and numbers: word2vec's text and binary files, fastText's `.vec`, and GloVe's text files.

Source: word2vec's `word2vec.c` (its two ways of saving vectors), GloVe's `glove.c` (the same text without a header).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.model_store.word_tables.byte_reader import ByteReader
from nestvec.model_store.word_tables.source_table import (
    FETCH_AGAIN,
    MAX_DIMENSIONS,
    MAX_WORD_BYTES,
    SourceTable,
    TableChunk,
    check_dimensions,
    rows_a_chunk,
)

MAX_HEADER_BYTES: Final = 64
MAX_NUMBER_BYTES: Final = 32  # of a number in a text, its blank included
HEADER_FIELDS: Final = 2
# Bytes that no text has; the numbers of a binary file soon have one.
CONTROLS: Final = frozenset({*range(9), *range(14, 32)})
PROBED_BYTES: Final = 4096


def read_word2vec(reader: ByteReader) -> SourceTable:
    """Read a table that is told by no signature.

    Raises:
        FormatError: It is no such table; names the line or byte.
    """
    header = _header(reader.peek(MAX_HEADER_BYTES))
    if header is None:
        return _read_glove(reader)
    words, dimensions = header
    reader.until(b"\n", MAX_HEADER_BYTES, "the first line")
    check_dimensions(dimensions, f"{reader.path}: line 1")
    if CONTROLS.isdisjoint(reader.peek(PROBED_BYTES)):
        chunks = _text_chunks(reader, dimensions, 2, words)
        return SourceTable("word2vec or fastText, text", dimensions, chunks)
    return SourceTable("word2vec, binary", dimensions, _binary_chunks(reader, dimensions, words))


def _header(start: bytes) -> tuple[int, int] | None:
    """Return the numbers of words and dimensions that a first line states; None where it is a word with its vector."""
    line, end, _ = start.partition(b"\n")
    fields = line.split()
    if not end or len(fields) != HEADER_FIELDS or not all(field.isdigit() for field in fields):
        return None
    return int(fields[0]), int(fields[1])


def _read_glove(reader: ByteReader) -> SourceTable:
    """Read a text without a header: the first line tells how many numbers each has."""
    limit = MAX_WORD_BYTES + MAX_NUMBER_BYTES * MAX_DIMENSIONS
    first = reader.line(limit, 1)
    if first is None:
        raise FormatError(f"{reader.path}: the file is empty")
    fields = first.split()
    dimensions = 0
    # A word may hold blanks, and be a number itself, but it is one field at least.
    for field in reversed(fields[1:]):
        if _number(field) is None:
            break
        dimensions += 1
    if not dimensions:
        raise FormatError(
            f"{reader.path}: line 1: not a word with its vector; word2vec's text and binary files, GloVe's text, "
            "fastText's .bin and .vec and Magnitude's .magnitude are read, each packed by gzip or not"
        )
    check_dimensions(dimensions, f"{reader.path}: line 1")
    return SourceTable(
        "GloVe, text", dimensions, _text_chunks(reader, dimensions, 1, None, [first])
    )


def _text_chunks(
    reader: ByteReader,
    dimensions: int,
    number: int,
    expected: int | None,
    held: Sequence[bytes] = (),
) -> Iterator[TableChunk]:
    """Read lines of a word and its numbers.

    Args:
        reader: At the first line that is not held.
        dimensions: Numbers a line.
        number: The number of the first line, for messages.
        expected: How many words the header states; None where there is none.
        held: Lines that were read already.
    """
    limit = MAX_WORD_BYTES + MAX_NUMBER_BYTES * dimensions
    size = rows_a_chunk(dimensions)
    lines = list(held)
    first = number
    count = 0
    while True:
        while len(lines) < size:
            line = reader.line(limit, first + len(lines))
            if line is None:
                break
            lines.append(line)
        while lines and expected is not None and count + len(lines) > expected:
            if lines[-1].strip():
                raise FormatError(
                    f"{reader.path}: line {first + len(lines) - 1}: the first line states {expected} words, and there "
                    "are more; correct it"
                )
            lines.pop()
        if not lines:
            break
        yield _parsed(reader, lines, dimensions, first)
        first, count, lines = first + len(lines), count + len(lines), []
    if expected is not None and count < expected:
        raise FormatError(
            f"{reader.path}: line {first}: the file ends after {count} words, and its first line states {expected}; "
            f"{FETCH_AGAIN}, or correct it"
        )


def _parsed(reader: ByteReader, lines: Sequence[bytes], dimensions: int, first: int) -> TableChunk:
    """Read the words and numbers of lines; a line that begins with a blank has an empty word."""
    words: list[bytes] = []
    numbers: list[float] = []
    for line in lines:
        word, *fields = line.rsplit(None, dimensions)
        if len(fields) == dimensions - 1 and line[:1].isspace():
            word, fields = b"", [word, *fields]
        try:
            of_word = [float(field) for field in fields]
        except ValueError:
            of_word = []
        if len(of_word) != dimensions or not line.strip():
            raise FormatError(
                f"{reader.path}: line {first + len(words)}: not a word and {dimensions} numbers; correct the line or "
                "leave it out"
            )
        words.append(word.strip())
        numbers += of_word
    with np.errstate(over="ignore"):
        rows: FloatArray = np.array(numbers, np.float64).astype(np.float32)
    rows = rows.reshape(len(words), dimensions)
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        line_number = first + int(np.flatnonzero(~is_finite)[0])
        raise FormatError(
            f"{reader.path}: line {line_number}: NaN or infinity; correct the line or leave it out"
        )
    return TableChunk(words, rows)


def _binary_chunks(reader: ByteReader, dimensions: int, words: int) -> Iterator[TableChunk]:
    """Read words that end with a blank, each before its float32 values."""
    size = rows_a_chunk(dimensions)
    for start in range(0, words, size):
        chunk_words: list[bytes] = []
        rows = []
        for number in range(start, min(start + size, words)):
            word = reader.until(b" ", MAX_WORD_BYTES, f"word {number + 1} of {words}")
            chunk_words.append(word.lstrip(b"\n"))
            rows.append(reader.floats(dimensions, f"the vector of word {number + 1} of {words}"))
        yield TableChunk(chunk_words, np.stack(rows))


def _number(field: bytes) -> float | None:
    """Read a number; None where it is none."""
    try:
        return float(field)
    except ValueError:
        return None
