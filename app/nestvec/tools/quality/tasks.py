"""Data sets on this disk, read in the layout in which they are published; none is bundled."""

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from nestvec.errors import FormatError


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


def read_retrieval(folder: Path) -> RetrievalTask:
    """Read a BEIR-like folder: corpus.jsonl.gz, queries.jsonl, qrels_test.tsv.

    Raises:
        FormatError: A file is missing or broken.
    """
    try:
        relevant: dict[str, dict[str, float]] = {}
        with (folder / "qrels_test.tsv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                relevant.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
        with (folder / "queries.jsonl").open(encoding="utf-8") as file:
            queries = {row["_id"]: row["text"] for row in map(json.loads, file)}
        with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as packed:
            documents = [(d["_id"], f"{d['title']} {d['text']}") for d in map(json.loads, packed)]
        query_ids = tuple(sorted(relevant))
        return RetrievalTask(
            query_ids=query_ids,
            queries=tuple(queries[q] for q in query_ids),
            document_ids=tuple(d for d, _ in documents),
            documents=tuple(text for _, text in documents),
            relevant=relevant,
        )
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{folder}: not a readable retrieval set ({error})") from error
