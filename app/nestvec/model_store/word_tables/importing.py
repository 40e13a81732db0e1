"""From a file of word vectors to a model folder: a chunk at a time, whole or not at all."""

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.subwords.parts import NGrams, SubwordSettings
from nestvec.engine.types import FloatArray
from nestvec.errors import ArtefactError, FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.config.config_fields import MAX_SIZE
from nestvec.export.families.static import SUBWORDS
from nestvec.export.graph.weights import SINGLE_FILE
from nestvec.model_store.folder.model_folder import TOKENIZER_FILE
from nestvec.model_store.folder.static_folders import WORD_TABLE, WORD_TABLE_FORMAT
from nestvec.model_store.sources.checkpoints import PROVENANCE
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.model_store.word_tables.fasttext import END_OF_LINE
from nestvec.model_store.word_tables.formats import open_table
from nestvec.model_store.word_tables.source_table import SourceTable, TableChunk
from nestvec.model_store.word_tables.table_writer import SafetensorsWriter
from nestvec.model_store.word_tables.vocabulary import WordVocabulary
from nestvec.model_store.word_tables.weighting import (
    Weighting,
    corpus_weights,
    file_weights,
    sif_weights,
)

FOLDED_NUMBERS: Final = 2**22  # of the n-grams' rows that are added up at once: 16 MiB
NGRAMS_A_WORD: Final = 32  # of them, about


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What is asked of an import.

    Attributes:
        lowercases: Whether texts are lower-cased; None where the words themselves tell: if none has a capital letter.
        splits_words: Whether marks beside words are words of their own; else texts are split at blanks alone.
        max_words: Take so many words from the start of the file, where the most frequent ones are; None for all.
        backs_off: Whether a word that the table lacks is made of its characters; tables of fastText's have n-grams.
        weighting: How words are weighed by a corpus, or by the counts that the file has; None for alike.
        corpus: Texts to weigh words by.
        weights_file: Lines of a word and a weight; None for none.
    """

    lowercases: bool | None = None
    splits_words: bool = True
    max_words: int | None = None
    backs_off: bool = False
    weighting: Weighting | None = None
    corpus: Iterable[str] = ()
    weights_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import made.

    Attributes:
        format_name: The file's format.
        dimensions: Columns of the table.
        words: Words taken.
        buckets: Rows of n-grams.
        duplicates: Words that came again and were left out.
        unreadable: Words that no text can meet (empty, with blanks, not UTF-8), left out.
        unmet: Share of the first words that no text meets, since texts are split or lower-cased otherwise.
        lowercases: Whether texts are lower-cased.
        is_weighted: Whether words have weights.
    """

    format_name: str
    dimensions: int
    words: int
    buckets: int
    duplicates: int
    unreadable: int
    unmet: float
    lowercases: bool
    is_weighted: bool

    @property
    def parameters(self) -> int:
        """Number of weights of the table."""
        return (self.words + 1 + self.buckets) * self.dimensions


@dataclass
class _Written:
    """What was written so far.

    Attributes:
        vocabulary: The words.
        spelled: The words by row, in bytes as the file has them; "" is the unknown one.
        places: Where in the file each word stands, by row but for that of the unknown one.
        read: Number of words read.
    """

    vocabulary: WordVocabulary = field(default_factory=WordVocabulary)
    spelled: list[bytes] = field(default_factory=lambda: [b""])
    places: list[int] = field(default_factory=list)
    read: int = 0


def import_table(path: Path, out: Path, options: ImportOptions | None = None) -> ImportReport:
    """Write a model folder of a file of word vectors.

    Args:
        path: Of word2vec, GloVe, fastText or Magnitude; packed by gzip or not.
        out: The new folder.
        options: What is asked; None for the defaults.

    Raises:
        FormatError: The file is corrupt or of no known format; names the line or byte. Or weights cannot be had.
        ArtefactError: The folder exists or cannot be written.
    """
    options = options or ImportOptions()
    with _new_folder(out) as folder, open_table(path, folder.parent) as source:
        return _write(path, folder, source, options)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Enter a folder that gets its name once the block has ended, and is gone where it fails.

    Raises:
        ArtefactError: It exists, or cannot be written.
    """
    if out.exists():
        raise ArtefactError(f"{out}: exists already")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".import-") as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            yield folder
            shutil.move(folder, out)
    except OSError as error:
        raise ArtefactError(
            f"{out}: cannot be written ({error.strerror or error}); free space there or choose another folder"
        ) from error


def _write(path: Path, folder: Path, source: SourceTable, options: ImportOptions) -> ImportReport:
    """Write the folder's files."""
    written, ngrams = _Written(), source.ngrams
    with SafetensorsWriter(folder / SINGLE_FILE, source.dimensions) as writer:
        writer.append(np.zeros((1, source.dimensions), np.float32))
        for chunk in _limited(source, options.max_words):
            _append(writer, chunk, written)
        words = writer.rows - 1
        if not words:
            raise FormatError(f"{path}: has no word that a text can meet")
        if ngrams is not None:
            ngrams = replace(ngrams, first_row=writer.rows)
            for chunk_rows in source.buckets:
                writer.append(chunk_rows)
            _fold(path, writer.table(), written.spelled, ngrams)
        _check_rows(path, writer.rows, has_parts=ngrams is not None or options.backs_off)
        vocabulary = written.vocabulary
        lowercases = options.lowercases
        if lowercases is None:
            lowercases = not vocabulary.has_capitals
        library = vocabulary.tokenizer(lowercases=lowercases, splits_words=options.splits_words)
        weights = _weights(source, written, options, library, writer.rows)
        writer.finish(weights)
    library.save(str(folder / TOKENIZER_FILE), pretty=False)
    rows = writer.rows
    subwords = SubwordSettings(rows, ngrams) if ngrams or options.backs_off else None
    _write_config(folder, source.dimensions, rows, subwords)
    report = ImportReport(
        format_name=source.format_name,
        dimensions=source.dimensions,
        words=words,
        buckets=0 if ngrams is None else ngrams.buckets,
        duplicates=vocabulary.duplicates,
        unreadable=vocabulary.unreadable,
        unmet=vocabulary.unmet(library),
        lowercases=lowercases,
        is_weighted=weights is not None,
    )
    _write_provenance(folder, path, report, options)
    return report


def _limited(source: SourceTable, max_words: int | None) -> Iterator[TableChunk]:
    """Iterate over a source's chunks; those beyond the limit are read and have no words."""
    left = max_words
    for chunk in source.chunks:
        if left is None:
            yield chunk
            continue
        if left == 0 and source.ngrams is None:
            return
        yield TableChunk(chunk.words[:left], chunk.rows[:left])
        left = max(left - len(chunk.words), 0)


def _append(writer: SafetensorsWriter, chunk: TableChunk, written: _Written) -> None:
    """Write a chunk's rows, but for those of words that are left out."""
    kept = written.vocabulary.add(chunk.words)
    writer.append(chunk.rows[kept] if len(kept) < len(chunk.words) else chunk.rows)
    written.spelled += [chunk.words[position] for position in kept]
    written.places += [written.read + position for position in kept]
    written.read += len(chunk.words)


def _check_rows(path: Path, rows: int, *, has_parts: bool) -> None:
    """Refuse a table of more rows than ids can name.

    Raises:
        FormatError: It has.
    """
    limit = MAX_SIZE // 2 if has_parts else MAX_SIZE
    if rows > limit:
        raise FormatError(
            f"{path}: {rows} rows, and {limit} are served; take fewer words (--max-words)"
        )


def _fold(path: Path, table: NDArray[np.float32], words: Sequence[bytes], ngrams: NGrams) -> None:
    """Make each word's row its vector: the mean of the row and its n-grams' rows, as fastText computes it.

    Args:
        path: The file, for messages.
        table: The table, mapped; changed in place.
        words: The words by row; the first is none.
        ngrams: Finds the n-grams' rows.

    Raises:
        FormatError: A mean is no float32.
    """
    size = max(1, FOLDED_NUMBERS // (NGRAMS_A_WORD * table.shape[1]))
    for start in range(1, len(words), size):
        part = words[start : start + size]
        rows, offsets = ngrams.rows_of_bytes(part)
        counts = np.diff(offsets)
        # The end of a line is the one word that fastText does not take apart.
        counts[[n for n, word in enumerate(part) if word == END_OF_LINE]] = 0
        has_some = np.flatnonzero(counts)
        if not len(has_some):
            continue
        is_used = np.repeat(counts > 0, np.diff(offsets))
        starts = np.cumsum(counts)[has_some] - counts[has_some]
        places = start + has_some
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.add.reduceat(table[rows[is_used]], starts, axis=0) + table[places]
        if not np.isfinite(sums).all():
            raise FormatError(
                f"{path}: the rows of words {start} to {start + len(part) - 1} add up to no number: the file is corrupt"
            )
        table[places] = sums / (counts[has_some, None] + 1).astype(np.float32)


def _weights(
    source: SourceTable,
    written: _Written,
    options: ImportOptions,
    library: LibraryTokenizer,
    rows: int,
) -> FloatArray | None:
    """Return the weight of each row; None where all count alike.

    Raises:
        FormatError: They are asked for, and neither a corpus nor the file tells them.
    """
    if options.weights_file is not None:
        return file_weights(options.weights_file, written.vocabulary.rows, rows)
    if options.weighting is None:
        return None
    texts = iter(options.corpus)
    first = next(texts, None)
    if first is not None:
        chained = itertools.chain([first], texts)
        return corpus_weights(options.weighting, chained, library, rows)
    if options.weighting is Weighting.IDF or not len(source.counts):
        raise FormatError(
            f"weights by {options.weighting} need a corpus (--corpus); sif alone does without, where the file says how "
            "often each word was seen, as fastText's .bin does"
        )
    counts = np.zeros(rows, np.int64)
    counts[1 : len(written.places) + 1] = source.counts[written.places]
    return sif_weights(counts, int(source.counts.sum()))


def _write_config(
    folder: Path, dimensions: int, rows: int, subwords: SubwordSettings | None
) -> None:
    """Write the config.json by which `find_static` knows a word table."""
    config: dict[str, Any] = {
        "model_type": STATIC_TYPE,
        WORD_TABLE: WORD_TABLE_FORMAT,
        "hidden_size": dimensions,
        "vocab_size": rows,
    }
    if subwords is not None:
        config[SUBWORDS] = subwords.written()
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")


def _write_provenance(
    folder: Path, path: Path, report: ImportReport, options: ImportOptions
) -> None:
    """Write what the folder was made of."""
    provenance = {
        "made_by": "import",
        "format": report.format_name,
        "file": path.name,
        "sha256": file_sha256(path),
        "lowercases": report.lowercases,
        "splits_words": options.splits_words,
        "max_words": options.max_words,
        "weights": None if options.weighting is None else str(options.weighting),
        "weights_file": None if options.weights_file is None else options.weights_file.name,
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1), "utf-8")
