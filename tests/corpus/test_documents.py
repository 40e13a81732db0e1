"""From folders to rows: ids that stay, chunks with their places, kept columns, runs that embed only what changed."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.corpus.embedders import EngineEmbedder, TextOptions
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.reading.records import Columns, TextUnit
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.rows import Chunking
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.store_writer import IdKind
from nestvec.engine.front.chunking import chunk_documents
from nestvec.engine.splitting import SplitterKind
from nestvec.engine.types import EmbedCall
from nestvec.errors import FormatError, InputError

from tests.support.served import SPEC, Served, ServedOptions, serve_fake

WORDS = ("alpha", "beta", "gamma", "red", "blue")
ENDINGS = ("parquet", "arrow", "npy", "jsonl")


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend, whose model reads 64 tokens."""
    spec = replace(SPEC, max_tokens=64)
    options = ServedOptions(spec=spec, max_queue_tokens=10**9)
    fake = serve_fake(tiny_folder / "tokenizer.json", options)
    yield fake
    fake.service.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-four Markdown files in three folders, each of some sections."""
    root = tmp_path / "notes"
    for number in range(24):
        path = root / f"part{number % 3}" / f"n{number // 3}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document(number))
    return root


def document(number: int) -> str:
    """Return a Markdown text of two to four sections."""
    parts = [
        f"# {WORDS[n % 5]} {number}\n\n" + f"{WORDS[(number + n) % 5]} beta. " * (5 + number % 7)
        for n in range(2 + number % 3)
    ]
    return "\n".join(parts)


async def run(served: Served, job: CorpusJob) -> CorpusSummary:
    """Embed a corpus."""
    return await embed_corpus(EngineEmbedder(served.service), job, lambda *_: None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an output, each with its vector."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    elif path.suffix == ".arrow":
        rows = pa.ipc.open_file(path).read_all().to_pylist()
    elif path.suffix == ".npy":
        lines = path.with_suffix(".rows.jsonl").read_text().splitlines()
        vectors = np.load(path).tolist()
        rows = [
            {**json.loads(line), "embedding": vector}
            for line, vector in zip(lines, vectors, strict=True)
        ]
        assert [row["id"] for row in rows] == path.with_suffix(".ids.txt").read_text().splitlines()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def markdown_job(folder: Path, target: Path, *, appends: bool = False) -> CorpusJob:
    """Return a job that cuts a folder's documents at headings."""
    return CorpusJob(
        find_sources([str(folder)], names_all=appends),
        target,
        columns=Columns(per=TextUnit.FILE),
        chunking=Chunking(SplitterKind.MARKDOWN, 16),
        appends=appends,
    )


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_folder_becomes_chunks(
    served: Served, folder: Path, tmp_path: Path, ending: str
) -> None:
    """Each row is the part of its document that it says, chunks join to it, and vectors are those of the texts."""
    target = tmp_path / f"out.{ending}"
    job = replace(markdown_job(folder, target), with_text=ending != "npy")
    summary = await run(served, job)
    rows = rows_of(target)
    assert (summary.texts, summary.rows) == (24, len(rows))
    assert len({row["id"] for row in rows}) == len(rows)
    documents: dict[str, str] = {}
    for row in rows:
        text = (folder.parent / row["document"]).read_text()[row["start"] : row["end"]]
        assert row.get("text", text) == text
        documents[row["document"]] = documents.get(row["document"], "") + text
    assert len(documents) == 24
    assert all((folder.parent / name).read_text() == text for name, text in documents.items())
    sample = rows[:: len(rows) // 7]
    texts = [
        (folder.parent / row["document"]).read_text()[row["start"] : row["end"]] for row in sample
    ]
    expected = (await served.service.embed(EmbedCall(texts))).vectors
    found = np.array([row["embedding"] for row in sample])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert summary.truncated == 0


@pytest.mark.parametrize("kind", list(SplitterKind))
@pytest.mark.parametrize("overlap", [0, 5])
def test_chunks_are_no_longer_than_asked_for(kind: SplitterKind, overlap: int) -> None:
    """No chunk has more tokens than asked for, a sentence without an end is cut, and each shares what it should."""
    text = "\n one two three four.  " * 9 + "word " * 50 + "\n\n # head\n" + "tail. " * 3
    starts = [
        n for n in range(len(text)) if not text[n].isspace() and (n == 0 or text[n - 1].isspace())
    ]
    chunking = Chunking(kind, 12, overlap)
    splitter = chunking.splitter
    if splitter.needs_sentences:
        splitter = replace(splitter, edges=(starts[7], starts[40], starts[60]))
    spans = chunking.spans(text, starts, splitter)

    def tokens(start: int, stop: int) -> list[int]:
        return [place for place in starts if start <= place < stop]

    assert all(0 < len(tokens(*span)) <= 12 for span in spans)
    if not overlap:  # not even white space is lost
        assert [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), len(text)]
    assert {place for span in spans for place in tokens(*span)} == set(starts)
    for before, after in itertools.pairwise(spans):
        shared = set(tokens(*before)) & set(tokens(*after))
        assert len(shared) == (min(overlap, len(tokens(0, before[1]))) if overlap else 0)


@pytest.mark.parametrize("is_late", [False, True])
async def test_documents_are_cut_where_they_turn(
    served: Served, folder: Path, tmp_path: Path, *, is_late: bool
) -> None:
    """By `semantic` the sentences are embedded first and counted; chunks lie where the engine's own route says."""
    target = tmp_path / "out.jsonl"
    chunking = Chunking(SplitterKind.SEMANTIC, 16, is_late=is_late)
    summary = await run(served, replace(markdown_job(folder, target), chunking=chunking))
    rows = [row for row in rows_of(target) if row["document"].endswith("part1/n3.md")]
    text = (folder / "part1/n3.md").read_text()
    call = EmbedCall([text], splits=(chunking.splitter,))
    found = await chunk_documents(served.service, call)
    assert [(row["start"], row["end"]) for row in rows] == [
        (chunk.start, chunk.stop) for chunk in found.chunks
    ]
    ran = sum(map(sum, served.backend.batches)) - sum(found.sentence_tokens)
    assert summary.tokens == ran


async def test_late_chunks_see_their_document(served: Served, folder: Path, tmp_path: Path) -> None:
    """With late chunking a chunk's vector is the one that the engine pools from its whole document."""
    target = tmp_path / "late.jsonl"
    job = markdown_job(folder, target)
    job = replace(job, chunking=Chunking(SplitterKind.MARKDOWN, 16, is_late=True))
    await run(served, job)
    rows = [row for row in rows_of(target) if row["document"].endswith("part1/n3.md")]
    text = (folder / "part1/n3.md").read_text()
    spans = tuple((row["start"], row["end"]) for row in rows)
    expected = (await served.service.embed(EmbedCall([text], splits=(spans,)))).vectors
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)


async def test_chunks_longer_than_the_model_are_refused(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    """Chunks that the model would cut are refused before any work."""
    job = markdown_job(folder, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="more than the model reads"):
        await run(served, replace(job, chunking=Chunking(SplitterKind.TOKENS, 65)))
    with pytest.raises(InputError, match="may share half"):
        await run(served, replace(job, chunking=Chunking(SplitterKind.TOKENS, 16, 9)))


def embedded(served: Served) -> int:
    """Return how many texts the backend has run."""
    return sum(map(len, served.backend.batches))


@pytest.mark.parametrize("ending", ENDINGS)
async def test_only_what_changed_is_embedded_again(
    served: Served, folder: Path, tmp_path: Path, ending: str
) -> None:
    """A second run embeds changed and new documents only; rows of the others stay, and none is lost or doubled."""
    target = tmp_path / f"out.{ending}"
    await run(served, markdown_job(folder, target, appends=True))
    before = {row["id"]: row for row in rows_of(target)}
    (folder / "part0/n1.md").write_text("# new\n\nalpha\n")
    (folder / "part1/n2.md").write_text(document(59) + "\n# more\n\nbeta\n")
    (folder / "part2/new.md").write_text("blue\n")
    ran = embedded(served)
    summary = await run(served, markdown_job(folder, target, appends=True))
    assert (summary.texts, summary.unchanged) == (25, 22)
    assert embedded(served) - ran == summary.rows
    whole = tmp_path / f"whole.{ending}"
    await run(served, markdown_job(folder, whole, appends=True))
    after = {row["id"]: row for row in rows_of(target)}
    assert len(after) == len(rows_of(target))
    expected = {row["id"]: row for row in rows_of(whole)}
    assert after.keys() == expected.keys()
    for name, row in after.items():
        np.testing.assert_allclose(row["embedding"], expected[name]["embedding"], atol=1e-6)
        assert row["content_hash"] == expected[name]["content_hash"]
    unchanged = [name for name in before if "part0/n5.md" in name]
    assert unchanged
    assert all(after[name] == before[name] for name in unchanged)
    # And a third run, with nothing to do, changes nothing.
    ran = embedded(served)
    assert (await run(served, markdown_job(folder, target, appends=True))).rows == 0
    assert embedded(served) == ran
    assert {row["id"] for row in rows_of(target)} == after.keys()


async def test_another_corpus_is_added_and_gone_documents_may_go(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    """Documents that this run does not name stay, unless they are to go."""
    target = tmp_path / "out.parquet"
    await run(served, markdown_job(folder, target, appends=True))
    other = tmp_path / "other"
    other.mkdir()
    (other / "n1.md").write_text("alpha")
    await run(served, markdown_job(other, target, appends=True))
    names = {row["document"] for row in rows_of(target)}
    assert len(names) == 25
    assert "other/n1.md" in names
    await run(served, replace(markdown_job(other, target, appends=True), prunes=True))
    assert {row["document"] for row in rows_of(target)} == {"other/n1.md"}


@pytest.mark.parametrize("ending", ["parquet", "npy"])
async def test_another_space_is_not_added_to(
    served: Served, folder: Path, tmp_path: Path, ending: str
) -> None:
    """Vectors of another size or space are not put beside those that are there, and the file stays as it was."""
    target = tmp_path / f"out.{ending}"
    job = markdown_job(folder, target, appends=True)
    await run(served, job)
    content = target.read_bytes()
    with pytest.raises(FormatError, match="dimensions 8, these are of 4"):
        await run(served, replace(job, options=TextOptions(dimensions=4)))
    plain = tmp_path / f"plain.{ending}"
    await run(served, replace(job, target=plain, appends=False))
    with pytest.raises(FormatError, match="from the first run on"):
        await run(served, replace(job, target=plain))
    assert target.read_bytes() == content
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_columns_are_kept_with_their_types(
    served: Served, tmp_path: Path, ending: str
) -> None:
    """Columns of the input stand beside the vectors, as what they were; what differs from row to row becomes JSON."""
    rows: list[dict[str, Any]] = [
        {
            "id": "a",
            "text": "alpha",
            "title": "A",
            "year": 1,
            "score": 1,
            "tags": ["x"],
            "new": True,
        },
        {
            "id": "b",
            "text": "beta",
            "title": None,
            "year": 2,
            "score": 0.5,
            "tags": 3,
            "new": False,
        },
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / f"out.{ending}"
    source.write_text("\n".join(map(json.dumps, rows)))
    keep = ("title", "year", "score", "tags", "new")
    await run(served, CorpusJob(find_sources([str(source)]), target, columns=Columns(keep=keep)))
    found = [{name: row[name] for name in keep} for row in rows_of(target)]
    expected: list[dict[str, Any]] = [{name: row[name] for name in keep} for row in rows]
    if ending in ("parquet", "arrow"):
        expected = [{**row, "tags": json.dumps(row["tags"])} for row in expected]
    assert found == expected
    if ending == "parquet":
        schema = pq.read_schema(target)
        types = [str(schema.field(name).type) for name in keep]
        assert types == ["string", "int64", "double", "string", "bool"]
    with pytest.raises(FormatError, match="no column 'nothing' to keep"):
        scan_job(CorpusJob(find_sources([str(source)]), target, columns=Columns(keep=("nothing",))))
    with pytest.raises(FormatError, match="'document' is a column of the output's own"):
        scan_job(
            CorpusJob(find_sources([str(source)]), target, columns=Columns(keep=("document",)))
        )


async def test_elasticsearch_takes_bulk_lines(served: Served, tmp_path: Path) -> None:
    """A .bulk.jsonl has an action before each document, as `_bulk` wants it."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.bulk.jsonl"
    source.write_text('{"id": "a", "text": "alpha", "title": "A"}')
    columns = Columns(keep=("all",))
    job = CorpusJob(find_sources([str(source)]), target, columns=columns, with_text=True)
    await run(served, job)
    action, row = map(json.loads, target.read_bytes().splitlines())
    assert action == {"index": {"_id": "a"}}
    assert {**row, "embedding": len(row["embedding"])} == {
        "id": "a",
        "embedding": 8,
        "text": "alpha",
        "title": "A",
    }
    assert target.read_bytes().endswith(b"\n")


async def ids(
    served: Served, tmp_path: Path, rows: Sequence[dict[str, Any]], kind: IdKind
) -> list[Any]:
    """Return the ids that rows get."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    columns = Columns(needs_id=kind is IdKind.COLUMN)
    await run(served, CorpusJob(find_sources([str(source)]), target, columns=columns, id_kind=kind))
    return [row["id"] for row in rows_of(target)]


async def test_ids_are_what_was_asked_for(served: Served, tmp_path: Path) -> None:
    """UUIDs and integers are of the name, hashes of the text; all are the same in every run."""
    rows = [{"id": "x", "text": "alpha"}, {"id": "7", "text": "alpha"}, {"text": "beta"}]
    assert await ids(served, tmp_path, rows, IdKind.NAME) == ["x", "7", "2"]
    uuids = await ids(served, tmp_path, rows, IdKind.UUID5)
    assert len(set(uuids)) == 3
    assert uuids == await ids(served, tmp_path, rows, IdKind.UUID5)
    numbers = await ids(served, tmp_path, rows, IdKind.INT)
    assert numbers[1:] == [7, 2]
    assert 2**32 < numbers[0] < 2**63
    hashes = await ids(served, tmp_path, rows, IdKind.SHA256)
    assert len(hashes) == 2  # equal texts are one
    with pytest.raises(FormatError, match=r"in\.jsonl:3: no column 'id'"):
        await ids(served, tmp_path, rows, IdKind.COLUMN)


@pytest.mark.parametrize("kind", [IdKind.NAME, IdKind.UUID5, IdKind.INT])
async def test_two_rows_of_one_id_are_refused(served: Served, tmp_path: Path, kind: IdKind) -> None:
    """Ids that come twice are refused before any work, and both places are named."""
    rows = [{"id": n, "text": "alpha"} for n in ("a", "b", "a")]
    with pytest.raises(FormatError, match=r"in\.jsonl:1 and .*in\.jsonl:3 have the same id"):
        await ids(served, tmp_path, rows, kind)
    assert not served.backend.batches
