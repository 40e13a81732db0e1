"""Contexts of a corpus's texts: read before each and left out of its vector, from a column of the records."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.config.settings import Settings
from nestvec.corpus.embedders import EngineEmbedder, OutputForm, TextOptions
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.reading.records import Columns, Record
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.rows import Chunking, RowMaker
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.corpus.store_writer import IdKind
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.splitting import SplitterKind
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import FormatError, InputError
from nestvec.main import build_app

from tests.support.served import SPEC, Served, ServedOptions, serve_fake
from tests.support.tiny import write_tiny_bert

COLUMNS = Columns(context="about")
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "beta red", "about": "alpha gamma"},
    {"id": "b", "text": "beta red", "about": ""},
    {"id": "c", "text": "gamma", "about": None},
    {"id": "d", "text": "beta red", "about": "blue"},
]
CONTEXTS = ("alpha gamma", "", "", "blue")


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend, whose model reads 64 tokens."""
    options = ServedOptions(spec=replace(SPEC, max_tokens=64), max_queue_tokens=10**9)
    fake = serve_fake(tiny_folder / "tokenizer.json", options)
    yield fake
    fake.service.close()


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of a path's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(str(row[name] or "") for name in rows[0]) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


async def run(served: Served, job: CorpusJob) -> CorpusSummary:
    """Embed a corpus."""
    return await embed_corpus(EngineEmbedder(served.service), job, lambda *_: None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
async def test_each_text_is_read_behind_its_context(
    served: Served, tmp_path: Path, ending: str
) -> None:
    """Vectors are those of single calls with the context; an empty column is none."""
    source = written(tmp_path / f"in.{ending}", ROWS)
    target = tmp_path / "out.jsonl"
    job = CorpusJob(find_sources([str(source)]), target, columns=COLUMNS)
    assert scan_job(job).records == len(ROWS)
    await run(served, job)
    found = np.array([row["embedding"] for row in rows_of(target)])
    texts = [row["text"] for row in ROWS]
    expected = (await served.service.embed(EmbedCall(texts, context=CONTEXTS))).vectors
    np.testing.assert_allclose(found, expected, atol=1e-6)
    plain = (await served.service.embed(EmbedCall(texts))).vectors
    assert np.isclose(found, plain, atol=1e-6).all(axis=1).tolist() == [False, True, True, False]


async def test_chunks_are_read_behind_the_context_of_their_document(
    served: Served, tmp_path: Path
) -> None:
    """Each chunk of it behind the same."""
    rows = [{**row, "text": f"# {row['text']}\n\nalpha beta.\n\n# gamma\n\nred."} for row in ROWS]
    source, target = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    chunking = Chunking(SplitterKind.MARKDOWN, 8)
    job = CorpusJob(
        find_sources([str(source)]), target, columns=COLUMNS, chunking=chunking, with_text=True
    )
    await run(served, job)
    found = rows_of(target)
    assert len(found) > len(rows)
    context = {row["id"]: row["about"] or "" for row in rows}
    call = EmbedCall(
        [row["text"] for row in found], context=tuple(context[row["document"]] for row in found)
    )
    expected = (await served.service.embed(call)).vectors
    np.testing.assert_allclose([row["embedding"] for row in found], expected, atol=1e-6)


async def test_only_texts_of_another_context_are_embedded_again(
    served: Served, tmp_path: Path
) -> None:
    """In an output that is added to, a context is part of what a record holds; so is one that comes or goes."""
    source, target = written(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    sources = find_sources([str(source)], names_all=True)
    plain = CorpusJob(sources, target, appends=True)
    assert (await run(served, plain)).rows == 4
    job = replace(plain, columns=COLUMNS)
    summary = await run(served, job)
    assert (summary.rows, summary.unchanged) == (2, 2)
    written(source, [{**ROWS[0], "about": "alpha red"}, *ROWS[1:]])
    summary = await run(served, replace(job, sources=sources))
    assert (summary.rows, summary.unchanged) == (1, 3)
    vectors = {row["id"]: row["embedding"] for row in rows_of(target)}
    call = EmbedCall(["beta red"] * 2, context=("alpha red", "blue"))
    expected = (await served.service.embed(call)).vectors
    np.testing.assert_allclose([vectors["a"], vectors["d"]], expected, atol=1e-6)


async def test_equal_texts_in_other_contexts_are_several(served: Served, tmp_path: Path) -> None:
    """Ids of texts tell them apart; without a context an id is that of the text alone."""
    source, target = written(tmp_path / "in.jsonl", [*ROWS, ROWS[3]]), tmp_path / "out.jsonl"
    sources = find_sources([str(source)])
    job = CorpusJob(sources, target, columns=COLUMNS, id_kind=IdKind.SHA256)
    summary = await run(served, job)
    assert (summary.rows, summary.doubled) == (4, 1)
    ids = [row["id"] for row in rows_of(target)]
    assert len(set(ids)) == 4
    assert ids[1] == hashlib.sha256(b"beta red").hexdigest()


def test_runs_of_before_are_gone_on_with() -> None:
    """Without contexts nothing by which a draft or a row is known again has changed."""
    assert "context" not in repr(Columns())
    record = Record("a", "alpha", "in.jsonl:1")
    known = hashlib.sha256(json.dumps(["", "alpha", {}]).encode()).hexdigest()[:32]
    assert RowMaker().content_hash(record) == known
    assert RowMaker().content_hash(replace(record, context="beta")) != known


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chunking": Chunking(SplitterKind.TOKENS, is_late=True)}, "leave --context-column or"),
        ({"options": TextOptions(truncate=Truncation.WINDOWS)}, "not read in windows"),
        ({"options": TextOptions(form=OutputForm.SPARSE)}, "sparse outputs are not pooled"),
        (
            {"options": TextOptions(form=OutputForm.MULTI_VECTOR)},
            "multi-vector outputs are not pooled",
        ),
        ({"columns": Columns(context="none")}, "in.jsonl:1: no column 'none' for --context-column"),
        ({"columns": Columns(context="year")}, "in.jsonl:1: column 'year' holds no text for"),
    ],
)
def test_contexts_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """By the name of the flag or the place of the record."""
    source = written(tmp_path / "in.jsonl", [{"text": "alpha", "about": "beta", "year": 1999}])
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl", columns=COLUMNS)
    with pytest.raises(FormatError, match=reason):
        scan_job(replace(job, **changes))


@pytest.mark.parametrize("name", ["in.txt", "in.md"])
def test_files_without_columns_have_no_contexts(tmp_path: Path, name: str) -> None:
    """They are refused, as a context that is asked for would be left out unseen."""
    (tmp_path / name).write_text("alpha")
    job = CorpusJob(find_sources([str(tmp_path / name)]), tmp_path / "o.npy", columns=COLUMNS)
    with pytest.raises(FormatError, match=rf"{name}: \.\w+ files have no columns"):
        scan_job(job)


def client_of(served: Served) -> ServerEmbedder:
    """Return a client of a server over the same engine, without a socket."""
    app = build_app(Settings())
    app.state.become_ready(served.service)
    remote = ServerEmbedder("http://server", key="", model="")
    transport = httpx.ASGITransport(app)
    remote._server.http = httpx.AsyncClient(transport=transport, base_url="http://server")
    return remote


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
async def test_a_model_that_takes_none_refuses_before_any_work(
    tiny_folder: Path, tmp_path: Path, pooling: str
) -> None:
    """In this process and on a server, also where no text has a context; nothing is written."""
    options = ServedOptions(spec=replace(SPEC, pooling=pooling))
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    source = written(tmp_path / "in.jsonl", [{"text": "alpha", "about": ""}])
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl", columns=COLUMNS)
    try:
        async with client_of(served) as remote:
            for embedder in (EngineEmbedder(served.service), remote):
                with pytest.raises(InputError, match="left out of the pooling"):
                    await embed_corpus(embedder, job, lambda *_: None)
    finally:
        served.service.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


async def test_a_server_reads_contexts_as_the_engine_does(tiny_folder: Path) -> None:
    """Each part of a request that was too large goes with its own contexts."""
    served, small = (
        serve_fake(
            tiny_folder / "tokenizer.json",
            ServedOptions(limits=limits, max_queue_tokens=10**9),
        )
        for limits in (ServiceLimits(), ServiceLimits(max_inputs=7))
    )
    texts = [f"beta {n % 5}" for n in range(30)]
    contexts = [f"alpha {'red ' * (n % 4)}" if n % 3 else "" for n in range(30)]
    try:
        async with client_of(small) as remote:
            found = await remote.embed(texts, TextOptions(), contexts=contexts)
            expected = await EngineEmbedder(served.service).embed(
                texts, TextOptions(), contexts=contexts
            )
    finally:
        served.service.close()
        small.service.close()
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
    assert (found.tokens, found.truncated) == (expected.tokens, expected.truncated)
    assert found.tokens > 4 * len(texts)


def test_the_flag_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the column: a text behind a context has another vector, one behind none the plain one."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    model = write_tiny_bert(tmp_path / "model")
    source = written(tmp_path / "in.csv", ROWS)
    found = []
    for name, flags in (("plain", []), ("behind", ["--context-column", "about"])):
        target = tmp_path / f"{name}.npy"
        arguments = ["embed", str(source), str(target), "--model", str(model), *flags]
        done = CliRunner().invoke(group, arguments)
        assert done.exit_code == 0, done.output
        found.append(np.load(target))
    same = np.isclose(found[0], found[1], atol=1e-6).all(axis=1)
    assert same.tolist() == [False, True, True, False]
