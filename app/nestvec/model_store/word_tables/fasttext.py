"""fastText's own files (`.bin`): words, and the rows of hashed n-grams that make vectors of any word.

Source: fastText's `fasttext.cc` (saveModel), `args.cc`, `dictionary.cc` and `densematrix.cc`, version 12 of the format.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.text.subwords.parts import NGrams
from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import MAX_SIZE
from nestvec.model_store.folder.static_folders import MAX_NGRAM_CHARS
from nestvec.model_store.word_tables.byte_reader import ByteReader
from nestvec.model_store.word_tables.source_table import (
    MAX_WORD_BYTES,
    SourceTable,
    TableChunk,
    check_dimensions,
    rows_a_chunk,
)

SIGNATURE: Final = struct.pack("<i", 793712314)
VERSION: Final = 12
OLD_VERSION: Final = 11
SUPERVISED: Final = (
    3  # `model` of a classifier; those of version 11 have no n-grams, whatever they say
)
# dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate, t.
ARGUMENTS: Final = struct.Struct("<12id")
SIZES: Final = struct.Struct("<3iqq")  # entries, words, labels, tokens, pruned buckets
ENTRY: Final = struct.Struct("<qb")  # count, kind
SHAPE: Final = struct.Struct("<2q")
WORD: Final = 0
# The word that ends a line in fastText: the only one that is not made of n-grams.
END_OF_LINE: Final = b"</s>"


@dataclass(frozen=True, slots=True)
class _Dictionary:
    """Words in the order of their rows, and how often each was seen."""

    words: list[bytes]
    counts: NDArray[np.int64]


def read_fasttext(reader: ByteReader) -> SourceTable:
    """Read a fastText model: its words' own rows, then those of its n-grams.

    A word's vector is the mean of its own row and those of its n-grams: whoever takes the table has to do that.

    Raises:
        FormatError: It is of another version, quantised, or corrupt; names the byte.
    """
    signature, version = struct.unpack("<ii", reader.exactly(8, "the header"))
    if signature != struct.unpack("<i", SIGNATURE)[0] or version not in (VERSION, OLD_VERSION):
        raise FormatError(
            f"{reader.path}: byte 0: a fastText file of version {version}; {OLD_VERSION} and {VERSION} are read: "
            "write it again with a newer fastText"
        )
    arguments = ARGUMENTS.unpack(reader.exactly(ARGUMENTS.size, "the arguments"))
    dimensions, model, buckets, min_chars, max_chars = (
        arguments[0],
        arguments[7],
        arguments[8],
        arguments[9],
        arguments[10],
    )
    check_dimensions(dimensions, f"{reader.path}: byte 8")
    if version == OLD_VERSION and model == SUPERVISED:
        max_chars = 0
    dictionary = _dictionary(reader)
    ngrams = _ngrams(reader, buckets, min_chars, max_chars)
    _check_matrix(reader, dimensions, len(dictionary.words), buckets)
    return SourceTable(
        "fastText, binary",
        dimensions,
        _word_chunks(reader, dictionary.words, dimensions),
        dictionary.counts,
        ngrams,
        iter(()) if ngrams is None else _bucket_rows(reader, buckets, dimensions),
    )


def _dictionary(reader: ByteReader) -> _Dictionary:
    """Read the dictionary; labels of a classifier, which stand behind the words, have no vectors of their own."""
    place = reader.offset
    entries, words, labels, _, pruned = SIZES.unpack(reader.exactly(SIZES.size, "the dictionary"))
    if not (0 < words <= MAX_SIZE and 0 <= labels <= MAX_SIZE and entries == words + labels):
        raise FormatError(
            f"{reader.path}: byte {place}: a dictionary of {entries} entries, {words} words and {labels} labels: the "
            "file is corrupt; fetch it again"
        )
    if pruned > 0:
        raise FormatError(_quantised(reader, place))
    names: list[bytes] = []
    counts: list[int] = []
    for number in range(entries):
        name = reader.until(b"\0", MAX_WORD_BYTES, f"entry {number + 1} of {entries}")
        count, kind = ENTRY.unpack(reader.exactly(ENTRY.size, f"entry {number + 1} of {entries}"))
        if (kind == WORD) is not (number < words):
            raise FormatError(
                f"{reader.path}: byte {reader.offset}: entry {number + 1} is of kind {kind}: the file is corrupt; "
                "fetch it again"
            )
        if kind == WORD:
            names.append(name)
            counts.append(max(count, 0))
    return _Dictionary(names, np.array(counts, np.int64))


def _ngrams(reader: ByteReader, buckets: int, min_chars: int, max_chars: int) -> NGrams | None:
    """Return how words are made of n-grams; None where the model has none."""
    if max_chars == 0 or buckets == 0:
        return None
    # fastText itself takes a shortest length of 0 for 1.
    if not (
        0 <= min_chars <= max_chars <= MAX_NGRAM_CHARS and max_chars > 0 and 0 < buckets <= MAX_SIZE
    ):
        raise FormatError(
            f"{reader.path}: byte 8: n-grams of {min_chars} to {max_chars} characters in {buckets} buckets; at most "
            f"{MAX_NGRAM_CHARS} characters are read"
        )
    return NGrams(max(min_chars, 1), max_chars, buckets)


def _check_matrix(reader: ByteReader, dimensions: int, words: int, buckets: int) -> None:
    """Read the start of the matrix of words and buckets, and refuse one that is quantised or of another shape."""
    place = reader.offset
    (is_quantised,) = struct.unpack("<?", reader.exactly(1, "the matrix"))
    if is_quantised:
        raise FormatError(_quantised(reader, place))
    rows, columns = SHAPE.unpack(reader.exactly(SHAPE.size, "the matrix"))
    if (rows, columns) != (words + max(buckets, 0), dimensions):
        raise FormatError(
            f"{reader.path}: byte {place}: a matrix of {rows} rows of {columns} values, not of {words} words and "
            f"{buckets} buckets of {dimensions}: the file is corrupt; fetch it again"
        )


def _quantised(reader: ByteReader, place: int) -> str:
    return (
        f"{reader.path}: byte {place}: a quantised fastText model (.ftz), which is not read; take the .bin that it was "
        "made of"
    )


def _word_chunks(reader: ByteReader, words: list[bytes], dimensions: int) -> Iterator[TableChunk]:
    size = rows_a_chunk(dimensions)
    for start in range(0, len(words), size):
        part = words[start : start + size]
        rows = reader.floats(len(part) * dimensions, "the words' rows")
        yield TableChunk(part, rows.reshape(len(part), dimensions))


def _bucket_rows(reader: ByteReader, buckets: int, dimensions: int) -> Iterator[FloatArray]:
    size = rows_a_chunk(dimensions)
    for start in range(0, buckets, size):
        count = min(size, buckets - start)
        yield reader.floats(count * dimensions, "the n-grams' rows").reshape(count, dimensions)
