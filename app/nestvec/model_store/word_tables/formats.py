"""Tells formats of word vectors apart, by their first bytes."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from nestvec.errors import FormatError
from nestvec.model_store.word_tables import fasttext, magnitude
from nestvec.model_store.word_tables.byte_reader import ByteReader, open_reader
from nestvec.model_store.word_tables.source_table import SourceTable
from nestvec.model_store.word_tables.word2vec import read_word2vec

# What is packed in other ways, or is another thing altogether, and what to do about it.
REFUSED: Final = {
    b"PK\x03\x04": "a zip archive; unpack it, and import the table in it",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ\0": "packed by xz; unpack it",
    b"(\xb5/\xfd": "packed by zstd; unpack it",
    b"\x80\x02": "a pickle; write the vectors with gensim's save_word2vec_format",
    b"\x80\x03": "a pickle; write the vectors with gensim's save_word2vec_format",
    b"\x80\x04": "a pickle; write the vectors with gensim's save_word2vec_format",
    b"\x80\x05": "a pickle; write the vectors with gensim's save_word2vec_format",
    b"\x89HDF": "an HDF5 file; write the vectors as text",
}
BLOCK_BYTES: Final = 2**20


@contextmanager
def open_table(path: Path, scratch: Path) -> Iterator[SourceTable]:
    """Open a file of word vectors.

    Args:
        path: The file; packed by gzip or not.
        scratch: A folder in which a packed database may be unpacked.

    Raises:
        FormatError: It is none of the formats, or corrupt; names the line or byte, also while it is read.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_reader(path))
        start = reader.peek(16)
        for signature, what in REFUSED.items():
            if start.startswith(signature):
                raise FormatError(f"{path}: {what}")
        if start.startswith(magnitude.SIGNATURE):
            yield magnitude.read_magnitude(_unpacked(reader, stack, scratch))
        elif start.startswith(fasttext.SIGNATURE):
            yield fasttext.read_fasttext(reader)
        else:
            yield read_word2vec(reader)


def _unpacked(reader: ByteReader, stack: ExitStack, scratch: Path) -> Path:
    """Return a database that can be opened: the file itself, or a copy that is not packed."""
    with reader.path.open("rb") as file:
        if file.read(len(magnitude.SIGNATURE)) == magnitude.SIGNATURE:
            return reader.path
    folder = stack.enter_context(tempfile.TemporaryDirectory(dir=scratch))
    copy = Path(folder) / "unpacked.magnitude"
    with copy.open("wb") as unpacked:
        while block := reader.peek(BLOCK_BYTES):
            unpacked.write(reader.exactly(len(block), "the database"))
    return copy
