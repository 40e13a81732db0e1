"""Scores have known values, and data sets are read as they are published."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.corpus.reports.statistics.neighbours import nearest, nearest_bits, rescore
from nestvec.corpus.reports.statistics.scores import ndcg, pair_cosines, spearman
from nestvec.errors import FormatError
from nestvec.tools.quality.remote import RemoteScore, markdown
from nestvec.tools.quality.report import render
from nestvec.tools.quality.tasks import read_pairs, read_retrieval


def test_spearman_averages_ties() -> None:
    """Ties are averaged: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4 give a known value."""
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("ranked", "relevant", "expected"),
    [
        (["a", "b"], {"a": 1.0}, 1.0),
        (["b", "a"], {"a": 1.0}, 1 / np.log2(3)),
        (["x", "y"], {"a": 1.0}, 0.0),
        (["a", "x", "b"], {"a": 1.0, "b": 1.0}, (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))),
        (["a"], {}, 0.0),
    ],
)
def test_ndcg(ranked: list[str], relevant: dict[str, float], expected: float) -> None:
    """NDCG discounts by log2 of rank + 1, over the ideal order."""
    assert ndcg(ranked, relevant, k=10) == pytest.approx(expected)


def test_ndcg_looks_no_deeper_than_k() -> None:
    """A hit beyond K does not count, and the ideal order is cut as well."""
    assert ndcg(["x", "a"], {"a": 1.0}, k=1) == 0.0
    assert ndcg(["a", "x"], {"a": 1.0, "b": 1.0}, k=1) == 1.0


def test_cosines_and_ranks() -> None:
    """Unit rows have a cosine of 1 with themselves, and find themselves first."""
    rows = np.eye(3, dtype=np.float32)
    assert pair_cosines(rows, rows).tolist() == [1, 1, 1]
    assert nearest(rows[1:2], rows, 2).tolist() == [[1, 0]]


def test_bits_are_ranked_and_rescored() -> None:
    """The document with the fewest differing bits comes first; floats put the candidates in order."""
    documents = np.array([[0b1111, 0], [0b0001, 0], [0b0000, 255]], np.uint8)
    queries = np.array([[0b0000, 0], [0b0000, 255]], np.uint8)
    order = nearest_bits(queries, documents, 2)
    assert order.tolist() == [[1, 0], [2, 1]]
    floats = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
    query_floats = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert rescore(query_floats, floats, order, 2).tolist() == [[0, 1], [2, 1]]


def test_sets_are_read_as_published(tmp_path: Path) -> None:
    """Pairs are read by tabs, retrieval sets in BEIR's layout with judged queries only."""
    (tmp_path / "p.tsv").write_text('4.5\t"a\tb"\n')
    assert read_pairs(tmp_path / "p.tsv").first == ('"a',)
    (tmp_path / "qrels_test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    queries = [{"_id": q, "text": q} for q in ("q1", "q2")]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as packed:
        packed.write(json.dumps({"_id": "d1", "title": "T", "text": "x"}))
    task = read_retrieval(tmp_path)
    assert (task.queries, task.documents, task.relevant) == (("q1",), ("T x",), {"q1": {"d1": 1.0}})


@pytest.mark.parametrize("layout", ["beir", "beir packed", "mteb", "mteb of data"])
def test_published_layouts_are_read(tmp_path: Path, layout: str) -> None:
    """BEIR's folders and MTEB's, with any of their splits, give the same task."""
    queries = [{"_id": q, "text": f"text of {q}"} for q in ("q1", "q2")]
    documents = [{"_id": "d1", "title": "T", "text": "x"}, {"_id": "d2", "title": "", "text": "y"}]
    judged = [{"query-id": "q1", "corpus-id": "d2", "score": 2}]
    if layout.startswith("beir"):
        (tmp_path / "qrels").mkdir()
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, r.values())) for r in judged)]
        (tmp_path / "qrels/dev.tsv").write_text("\n".join(lines) + "\n")
        for name, rows in (("queries", queries), ("corpus", documents)):
            content = "\n".join(map(json.dumps, rows))
            if layout == "beir packed":
                (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(content.encode()))
            else:
                (tmp_path / f"{name}.jsonl").write_text(content)
    else:
        qrels = "default" if layout == "mteb" else "data"
        parts: dict[str, list[Any]] = {
            "queries/queries": queries,
            "corpus/corpus": documents,
            f"{qrels}/dev": judged,
        }
        for name, table in parts.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            path = tmp_path / f"{name}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist(table), path)
    task = read_retrieval(tmp_path, "dev")
    assert (task.query_ids, task.queries) == (("q1",), ("text of q1",))
    assert dict(zip(task.document_ids, task.documents, strict=True)) == {"d1": "T x", "d2": "y"}
    assert task.relevant == {"q1": {"d2": 2.0}}
    with pytest.raises(FormatError, match="no judgements of the split 'test'"):
        read_retrieval(tmp_path)


@pytest.mark.parametrize("content", ["1\ta\n", "x\ta\tb\n", "1\ta\tb\tc\n"])
def test_broken_pairs_name_the_line(tmp_path: Path, content: str) -> None:
    """A broken line of pairs is an error that names it, here the second."""
    (tmp_path / "p.tsv").write_text("1\ta\tb\n" + content)
    with pytest.raises(FormatError, match=r"p\.tsv:2: expected score"):
        read_pairs(tmp_path / "p.tsv")
    with pytest.raises(FormatError, match="cannot be read"):
        read_pairs(tmp_path / "absent.tsv")


def test_a_broken_retrieval_set_is_an_error(tmp_path: Path) -> None:
    """A broken retrieval set is an error that names the folder, and the layouts that are read."""
    with pytest.raises(FormatError, match=r"no judgements of the split 'test', as qrels/test\.tsv"):
        read_retrieval(tmp_path)
    (tmp_path / "qrels_test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with pytest.raises(FormatError, match=r"neither corpus\.jsonl \(BEIR\)"):
        read_retrieval(tmp_path)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "x"}')
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1"}')
    with pytest.raises(FormatError, match=r"not a readable retrieval set \(no 'text'\)"):
        read_retrieval(tmp_path)


def test_the_table() -> None:
    """The Markdown table has a line for each figure."""
    assert (
        markdown([RemoteScore("t", 384, 0.82034)]).splitlines()[-1]
        == "| t | 384 | float | 0.8203 |"
    )


def test_a_missing_package_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measuring or reporting needs is looked for first, with the commands that bring it."""
    render.check_packages()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"quality needs matplotlib: `make setup EXTRAS=quality`"):
        render.check_packages()
