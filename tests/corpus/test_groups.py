"""Groups of a corpus's texts: rows of one value, one after the other, make one vector together."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.corpus.embedders import EngineEmbedder, OutputForm, TextOptions
from nestvec.corpus.files.json_lines import JsonlWriter
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.pacing import CallPacer, PaceLimits
from nestvec.corpus.reading.records import Columns, Record
from nestvec.corpus.reading.sources import MAX_GROUP_TEXTS, find_sources
from nestvec.corpus.rows import Chunking, RowMaker
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.store_writer import IdKind
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.splitting import SplitterKind
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.engine.vectors.groups import Groups
from nestvec.errors import FormatError, InputError

from tests.corpus.test_contexts import client_of, rows_of, run, written
from tests.support.served import SPEC, Served, ServedOptions, serve_fake
from tests.support.tiny import write_tiny_bert

COLUMNS = Columns(group="doc")
WEIGHTED = Columns(group="doc", weight="share", keep=("year",))
WORDS = ("alpha", "beta", "gamma", "red", "blue")


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend, whose model reads 64 tokens."""
    options = ServedOptions(spec=replace(SPEC, max_tokens=64), max_queue_tokens=10**9)
    fake = serve_fake(tiny_folder / "tokenizer.json", options)
    yield fake
    fake.service.close()


def grouped_rows(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return rows in groups of these sizes, no two groups alike."""
    places = [(number, part) for number, size in enumerate(sizes) for part in range(size)]
    return [
        {
            "doc": f"doc{number}",
            "text": f"{WORDS[part % 5]} {WORDS[number % 5]} {part} {number}",
            "share": part + 1,
            "year": 1990 + number + part,
        }
        for number, part in places
    ]


async def vectors_of(served: Served, rows: Sequence[dict[str, Any]], sizes: Sequence[int]) -> Any:
    """Return the groups' vectors, of the engine by one call."""
    weights = tuple(float(row["share"]) for row in rows)
    call = EmbedCall([row["text"] for row in rows], groups=tuple(sizes), weights=weights)
    return (await served.service.embed(call)).vectors


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
async def test_rows_of_a_group_make_one_vector(served: Served, tmp_path: Path, ending: str) -> None:
    """Its id is the group's, its kept columns those of the first row, its text all of them, a line each."""
    sizes = (3, 1, 2)
    rows = grouped_rows(sizes)
    source, target = written(tmp_path / f"in.{ending}", rows), tmp_path / "out.jsonl"
    job = CorpusJob(find_sources([str(source)]), target, columns=WEIGHTED, with_text=True)
    assert scan_job(job).records == 3
    summary = await run(served, job)
    assert (summary.texts, summary.rows) == (3, 3)
    found = rows_of(target)
    assert [row["id"] for row in found] == ["doc0", "doc1", "doc2"]
    assert [int(row["year"]) for row in found] == [1990, 1991, 1992]
    assert found[2]["text"] == "\n".join(row["text"] for row in rows[4:])
    expected = await vectors_of(served, rows, sizes)
    np.testing.assert_allclose([row["embedding"] for row in found], expected, atol=1e-6)


async def test_a_group_is_in_one_call_whatever_the_pace(served: Served, tmp_path: Path) -> None:
    """Calls of five texts at most never end within a group, however large; so the vectors are the same."""
    sizes = (4, 4, 9, 1, 1, 1, 7)
    rows = grouped_rows(sizes)
    source, target = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    embedder = EngineEmbedder(served.service)
    embedder.pacer = CallPacer(PaceLimits(0.001, 2, 5, 5, 5))
    job = CorpusJob(find_sources([str(source)]), target, columns=WEIGHTED)
    await embed_corpus(embedder, job, lambda *_: None)
    expected = await vectors_of(served, rows, sizes)
    found = [row["embedding"] for row in rows_of(target)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


async def test_requests_that_are_halved_keep_groups_whole(tiny_folder: Path) -> None:
    """A server that takes seven inputs gets whole groups only; one that is larger is refused by its place."""
    served, small = (
        serve_fake(
            tiny_folder / "tokenizer.json", ServedOptions(limits=limits, max_queue_tokens=10**9)
        )
        for limits in (ServiceLimits(), ServiceLimits(max_inputs=7))
    )
    sizes = (3, 1, 6, 2, 2, 7, 5)
    rows = grouped_rows(sizes)
    texts, groups = (
        [row["text"] for row in rows],
        Groups(sizes, tuple(row["share"] for row in rows)),
    )
    contexts = ["red " * (n % 3) for n in range(len(texts))]
    try:
        async with client_of(small) as remote:
            embed = EngineEmbedder(served.service).embed
            found = await remote.embed(texts, TextOptions(), contexts=contexts, groups=groups)
            expected = await embed(texts, TextOptions(), contexts=contexts, groups=groups)
            with pytest.raises(InputError, match="at most 7 inputs"):
                await remote.embed(texts[:8], TextOptions(), groups=Groups((8,)))
            # Its place among all groups, though it was asked for in a part of them.
            away = Groups((*sizes[:-1], 2, 3), (*(1.0,) * 21, 1.0, -1.0 + 1e-9, 1.0, 1.0, 1.0))
            same = [*texts[:21], "alpha", "alpha", *texts[:3]]
            with pytest.raises(InputError, match="cancel each other out") as caught:
                await remote.embed(same, TextOptions(), groups=away)
    finally:
        served.service.close()
        small.service.close()
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
    assert (found.tokens, found.truncated) == (expected.tokens, expected.truncated)
    assert len(found.vectors) == len(sizes)
    assert caught.value.input_index == 6


async def test_an_interrupted_run_goes_on_at_a_group(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is not embedded again, and no group is left in halves."""
    sizes = (3,) * 20
    rows = grouped_rows(sizes)
    source, target = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    job = CorpusJob(find_sources([str(source)]), target, columns=WEIGHTED)
    monkeypatch.setattr("nestvec.corpus.pipeline.COMMIT_S", 0.0)
    write = JsonlWriter.write
    counts: list[int] = []

    def torn(self: JsonlWriter, rows: Sequence[Any], vectors: Any) -> None:
        write(self, rows, vectors)
        counts.append(len(rows))
        if len(counts) == 2:
            raise asyncio.CancelledError

    embedder = EngineEmbedder(served.service)
    embedder.pacer = CallPacer(PaceLimits(1.0, 1, 40, 40, 10))
    with monkeypatch.context() as patched:
        patched.setattr(JsonlWriter, "write", torn)
        with pytest.raises(asyncio.CancelledError):
            await embed_corpus(embedder, job, lambda *_: None)
    summary = await run(served, job)
    assert 0 < summary.resumed == counts[0] < summary.texts == len(sizes)
    expected = await vectors_of(served, rows, sizes)
    found = rows_of(target)
    assert [row["id"] for row in found] == [f"doc{n}" for n in range(20)]
    np.testing.assert_allclose([row["embedding"] for row in found], expected, atol=1e-6)
    # A run that weighs otherwise is another run.
    with monkeypatch.context() as patched:
        patched.setattr(JsonlWriter, "write", torn)
        counts.clear()
        with pytest.raises(asyncio.CancelledError):
            await embed_corpus(embedder, job, lambda *_: None)
    assert (await run(served, replace(job, columns=replace(WEIGHTED, weight="")))).resumed == 0


async def test_a_group_is_embedded_again_where_a_part_has_changed(
    served: Served, tmp_path: Path
) -> None:
    """Its text, its weight or its number of parts."""
    rows = grouped_rows((2, 2, 2))
    source, target = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    job = CorpusJob(
        find_sources([str(source)], names_all=True),
        target,
        columns=replace(WEIGHTED, keep=()),
        appends=True,
    )
    assert (await run(served, job)).rows == 3
    for change in ({"text": "blue"}, {"share": 9}, {"doc": "doc3"}):
        rows[5] = {**rows[5], **change}
        written(source, rows)
        job = replace(job, sources=find_sources([str(source)], names_all=True))
        summary = await run(served, job)
        assert summary.unchanged == 2
    vectors = {row["id"]: row["embedding"] for row in rows_of(target)}
    expected = await vectors_of(served, rows, (2, 2, 1, 1))
    np.testing.assert_allclose([vectors[f"doc{n}"] for n in range(4)], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chunking": Chunking(SplitterKind.TOKENS)}, "leave --group-column or --chunk out"),
        ({"options": TextOptions(form=OutputForm.SPARSE)}, "sparse outputs are of single texts"),
        (
            {"options": TextOptions(form=OutputForm.MULTI_VECTOR)},
            "multi-vector outputs are of single",
        ),
        ({"id_kind": IdKind.SHA256}, "leave --id-column and --id sha256 out"),
        ({"columns": replace(COLUMNS, id="doc")}, "leave --id-column and --id sha256 out"),
        ({"columns": Columns(group="none")}, "in.jsonl:1: no column 'none' for --group-column"),
        ({"columns": Columns(group="empty")}, "in.jsonl:1: column 'empty' is empty for --group"),
        ({"columns": replace(COLUMNS, weight="text")}, "in.jsonl:1: column 'text' holds no finite"),
        ({"columns": replace(COLUMNS, weight="flag")}, "in.jsonl:1: column 'flag' holds no finite"),
        ({"columns": replace(COLUMNS, weight="zero")}, "in.jsonl:1: the weights of the group"),
    ],
)
def test_groups_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """By the name of the flag or the place of the record."""
    row = {"doc": 7, "text": "alpha", "empty": None, "flag": True, "zero": 0}
    source = written(tmp_path / "in.jsonl", [row])
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl", columns=COLUMNS)
    with pytest.raises(FormatError, match=reason):
        scan_job(replace(job, **changes))


def test_a_group_is_in_one_place(tmp_path: Path) -> None:
    """Rows of one value that do not follow one another are two groups of one id, which is refused, with both places."""
    rows = [{"doc": name, "text": "alpha"} for name in ("a", "a", "b", "a")]
    source = written(tmp_path / "in.jsonl", rows)
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl", columns=COLUMNS)
    with pytest.raises(
        FormatError, match=r"in\.jsonl:1 and .*in\.jsonl:4 .*must follow one another"
    ):
        scan_job(job)


def test_a_group_fits_a_call(tmp_path: Path) -> None:
    """A column that is the same all over is no group: it is not read into memory as one."""
    rows = [{"doc": "a", "text": "alpha"}] * (MAX_GROUP_TEXTS + 1)
    source = written(tmp_path / "in.jsonl", rows)
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl", columns=COLUMNS)
    with pytest.raises(FormatError, match=r"in\.jsonl:1: the group that begins here has more than"):
        scan_job(job)


@pytest.mark.parametrize("name", ["in.txt", "in.md"])
def test_files_without_columns_have_no_groups(tmp_path: Path, name: str) -> None:
    """They are refused by the flag."""
    (tmp_path / name).write_text("alpha")
    job = CorpusJob(find_sources([str(tmp_path / name)]), tmp_path / "o.npy", columns=COLUMNS)
    with pytest.raises(FormatError, match=r"have no columns; --group-column"):
        scan_job(job)


async def test_a_text_of_a_group_that_is_too_long_is_named(served: Served, tmp_path: Path) -> None:
    """By its own line, not the group's first."""
    rows = grouped_rows((2, 3))
    rows[3]["text"] = "alpha " * 100
    source = written(tmp_path / "in.jsonl", rows)
    options = TextOptions(truncate=Truncation.ERROR)
    sources = find_sources([str(source)])
    job = CorpusJob(sources, tmp_path / "o.npy", columns=COLUMNS, options=options)
    with pytest.raises(FormatError, match=r"in\.jsonl:4: "):
        await run(served, job)


def test_runs_of_before_are_gone_on_with() -> None:
    """Without groups nothing by which a draft or a row is known again has changed."""
    assert "group" not in repr(Columns())
    assert "weight" not in repr(Columns())
    record = Record("a", "alpha", "in.jsonl:1")
    known = hashlib.sha256(json.dumps(["", "alpha", {}]).encode()).hexdigest()[:32]
    assert RowMaker().content_hash(record) == known
    assert RowMaker().content_hash(replace(record, members=(record,))) != known


def test_the_flags_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name the columns; weights alone are refused."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    model = write_tiny_bert(tmp_path / "model")
    source = written(tmp_path / "in.csv", grouped_rows((2, 1)))
    found = []
    flags = ["--group-column", "doc", "--weight-column", "share"]
    for name, some in (("plain", flags[:2]), ("weighted", flags)):
        target = tmp_path / f"{name}.npy"
        arguments = ["embed", str(source), str(target), "--model", str(model), *some]
        done = CliRunner().invoke(group, arguments)
        assert done.exit_code == 0, done.output
        found.append(np.load(target))
    same = np.isclose(found[0], found[1], atol=1e-6).all(axis=1)
    assert same.tolist() == [False, True]
    done = CliRunner().invoke(group, ["embed", str(source), "-", *flags[2:]])
    assert done.exit_code == 2
    assert "--group-column" in done.output
