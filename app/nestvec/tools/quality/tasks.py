"""Data sets on this disk, read in the layout in which they are published; none is bundled.

| retrieval | documents | queries | judgements |
|---|---|---|---|
| BEIR | `corpus.jsonl` | `queries.jsonl` | `qrels/<split>.tsv` |
| MTEB | `corpus/corpus-*.parquet` | `queries/queries-*.parquet` | `<split>-*.parquet` in `qrels`, `default` or `data` |

JSON lines may be packed by gzip, and stand where the other layout has Parquet; judgements may be `.tsv`, `.jsonl` or
`.parquet`, also as `qrels_<split>.tsv`.
"""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install

QRELS_FOLDERS: Final = ("qrels", "default", "data", ".")
ID_NAMES: Final = ("_id", "id")
QUERY_NAMES: Final = ("query-id", "query_id", "qid")
DOCUMENT_NAMES: Final = ("corpus-id", "corpus_id", "docid")


@dataclass(frozen=True, slots=True)
class PairTask:
    """Pairs of texts with gold scores of their similarity.

    Attributes:
        first: The first text of each pair.
        second: The second text of each pair.
        gold: The score of each pair.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RetrievalTask:
    """Queries, documents, and which documents answer which queries.

    Attributes:
        query_ids: The id of each query.
        queries: The text of each query.
        document_ids: The id of each document.
        documents: The text of each document.
        relevant: Gains by query id, then by document id.
    """

    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: dict[str, dict[str, float]]


def read_pairs(path: Path) -> PairTask:
    """Read `score<TAB>text<TAB>text` lines.

    Raises:
        FormatError: The file is missing, or a line is not of this form; the error names it.
    """
    gold, first, second = [], [], []
    try:
        for line in path.read_text("utf-8").splitlines():
            score, left, right = line.split("\t")
            gold.append(float(score))
            second.append(right)
            first.append(left)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FormatError(
            f"{path}:{len(first) + 1}: expected score, tab, text, tab, text"
        ) from error
    return PairTask(tuple(first), tuple(second), tuple(gold))


def read_answer_pairs(path: Path) -> RetrievalTask:
    """Read `query<TAB>text that answers it` lines; every text is a document for all queries.

    Raises:
        FormatError: The file is missing, or a line is not of this form; the error names it.
    """
    relevant: dict[str, dict[str, float]] = {}
    documents: dict[str, str] = {}
    number = 0
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):  # noqa: B007 - an error below names it
            query, text = line.split("\t")
            document_id = documents.setdefault(text, str(len(documents)))
            relevant.setdefault(query, {})[document_id] = 1.0
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FormatError(f"{path}:{number}: expected query, tab, text") from error
    if not relevant:
        raise FormatError(f"{path}: holds no pairs")
    queries = tuple(relevant)
    ids = {query: str(n) for n, query in enumerate(queries)}
    return RetrievalTask(
        query_ids=tuple(ids.values()),
        queries=queries,
        document_ids=tuple(documents.values()),
        documents=tuple(documents),
        relevant={ids[query]: gains for query, gains in relevant.items()},
    )


def read_texts(path: Path) -> list[str]:
    """Read texts, one a line; empty lines and repetitions are left out.

    Raises:
        FormatError: The file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error
    return list(dict.fromkeys(line for line in lines if line.strip()))


def read_retrieval(folder: Path, split: str = "test") -> RetrievalTask:
    """Read a folder in BEIR's or MTEB's layout.

    Args:
        folder: The folder.
        split: Whose judgements: "test", "dev", "train" or whatever the set has.

    Raises:
        FormatError: A file is missing or broken.
    """
    qrels = _qrels_files(folder, split)
    texts = {kind: _text_files(folder, kind) for kind in ("corpus", "queries")}
    try:
        relevant: dict[str, dict[str, float]] = {}
        for row in _rows(qrels):
            query, document = _first(row, QUERY_NAMES), _first(row, DOCUMENT_NAMES)
            relevant.setdefault(query, {})[document] = float(row["score"])
        queries = {_first(row, ID_NAMES): row["text"] for row in _rows(texts["queries"])}
        documents = {
            _first(row, ID_NAMES): f"{row.get('title') or ''} {row['text']}".lstrip()
            for row in _rows(texts["corpus"])
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{folder}: not a readable retrieval set ({reason})") from error
    query_ids = tuple(sorted(set(relevant) & set(queries)))
    if not query_ids or not documents:
        raise FormatError(
            f"{folder}: no query of the split '{split}' is judged, or no document is there"
        )
    return RetrievalTask(
        query_ids=query_ids,
        queries=tuple(queries[query] for query in query_ids),
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        relevant={query: relevant[query] for query in query_ids},
    )


def _text_files(folder: Path, kind: str) -> list[Path]:
    """Return the files of the documents or the queries.

    Raises:
        FormatError: There is none.
    """
    for pattern in (f"{kind}.jsonl", f"{kind}.jsonl.gz", f"{kind}/*.parquet", f"{kind}*.parquet"):
        if files := sorted(folder.glob(pattern)):
            return files
    raise FormatError(
        f"{folder}: holds neither {kind}.jsonl (BEIR) nor {kind}/{kind}-*.parquet (MTEB)"
    )


def _qrels_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split's judgements.

    Raises:
        FormatError: There is none; the error names the splits that there are.
    """
    for place in QRELS_FOLDERS:
        for stem in (split, f"{split}-*", f"qrels_{split}"):
            for ending in ("tsv", "jsonl", "parquet"):
                if files := sorted((folder / place).glob(f"{stem}.{ending}")):
                    return files
    found = sorted({path.stem.partition("-")[0] for path in (folder / "qrels").glob("*.*")})
    there = f"; it has: {', '.join(found)}" if found else ""
    raise FormatError(
        f"{folder}: no judgements of the split '{split}', as qrels/{split}.tsv (BEIR) or "
        f"default/{split}-*.parquet (MTEB){there}"
    )


def _rows(paths: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of files: JSON lines, packed or not, tab-separated, or Parquet."""
    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix == ".tsv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file.

    Raises:
        FormatError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FormatError(f"{path}: Parquet needs pyarrow: {how_to_install('parquet')}") from error
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the value of the first of these columns that a row has.

    Raises:
        KeyError: It has none.
    """
    for name in names:
        if row.get(name) is not None:
            return str(row[name])
    raise KeyError(names[0])
