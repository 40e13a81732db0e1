"""Embedding whole files: order, every output format, nothing half written."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.corpus import writers
from app.corpus.readers import Columns
from app.corpus.run import CorpusJob, Summary, count_records, embed_corpus
from app.engine.types import EmbedCall, Truncation
from app.errors import ArtefactError, FormatError, InputError
from tests.served import SPEC, Served, ServedOptions, serve_fake

COUNT = 2500


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend with room for whole chunks."""
    made = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(max_queue_tokens=10**9))
    yield made
    made.service.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Over two chunks of texts, some too long."""
    path = tmp_path / "in.jsonl"
    rows = [{"id": f"id{n}", "text": "alpha " * (n % 20) + str(n)} for n in range(COUNT)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


async def run(served: Served, job: CorpusJob) -> Summary:
    """Embed, and check that progress adds up."""
    done: list[int] = []
    summary = await embed_corpus(served.service, job, lambda texts, _: done.append(texts))
    assert sum(done) == summary.texts
    return summary


def read_back(path: Path) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Ids and vectors of an output."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return table["id"].to_pylist(), np.stack(table["embedding"].to_numpy())
    if path.suffix == ".npy":
        return path.with_suffix(".ids.txt").read_text().splitlines(), np.load(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["id"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
async def test_all_formats_hold_the_same_vectors_in_order(
    served: Served, source: Path, tmp_path: Path, ending: str
) -> None:
    """Equal to those the service gives; ids beside them; model and space as metadata."""
    target = tmp_path / f"out.{ending}"
    job = CorpusJob(source, target, dimensions=5)
    assert count_records(job) == COUNT
    summary = await run(served, job)
    ids, vectors = read_back(target)
    assert ids == [f"id{n}" for n in range(COUNT)]
    texts = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    some = [0, 7, 1023, 1024, COUNT - 1]
    call = EmbedCall([texts[n] for n in some], dimensions=5, truncate=Truncation.END)
    expected = (await served.service.embed(call)).vectors
    np.testing.assert_allclose(vectors[some], expected, atol=1e-6)
    assert (summary.texts, summary.truncated > 0) == (COUNT, True)
    metadata = (
        {k.decode(): v.decode() for k, v in pq.read_schema(target).metadata.items()}
        if ending == "parquet"
        else json.loads(target.with_suffix(".meta.json").read_text())
    )
    assert (metadata["nestvec.model"], metadata["nestvec.space"]) == (SPEC.name, SPEC.space)
    assert metadata["nestvec.dimensions"] == "5"


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
async def test_texts_may_be_kept(served: Served, tmp_path: Path, ending: str) -> None:
    """Beside their vectors."""
    (tmp_path / "in.txt").write_text("alpha\nbeta")
    target = tmp_path / f"out.{ending}"
    await run(served, CorpusJob(tmp_path / "in.txt", target, with_text=True))
    found = (
        pq.read_table(target)["text"].to_pylist()
        if ending == "parquet"
        else [json.loads(line)["text"] for line in target.read_text().splitlines()]
    )
    assert found == ["alpha", "beta"]


@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
async def test_an_empty_file_gives_an_empty_one(
    served: Served, tmp_path: Path, ending: str
) -> None:
    """Readable, with no rows."""
    (tmp_path / "in.txt").write_text("")
    target = tmp_path / f"out.{ending}"
    assert (await run(served, CorpusJob(tmp_path / "in.txt", target))).texts == 0
    if ending == "parquet":
        assert pq.read_table(target).num_rows == 0
    elif ending == "npy":
        assert len(np.load(target)) == 0
    else:
        assert target.read_text() == ""


async def test_a_text_that_cannot_be_embedded_names_its_line(
    served: Served, source: Path, tmp_path: Path
) -> None:
    """And the old output stays as it was."""
    target = tmp_path / "out.npy"
    target.write_bytes(b"old")
    with pytest.raises(
        FormatError, match=r"in\.jsonl:\d+: This model's maximum context length is 16"
    ):
        await run(served, CorpusJob(source, target, truncate=Truncation.ERROR))
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]


async def test_a_wrong_option_is_an_input_error(
    served: Served, source: Path, tmp_path: Path
) -> None:
    """Not one of a line."""
    with pytest.raises(InputError, match="Must be 1 to 8"):
        await run(served, CorpusJob(source, tmp_path / "out.npy", dimensions=99))


async def test_a_full_disk_is_a_clear_error(
    served: Served, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half written stays."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writers.NpyWriter, "write", full)
    with pytest.raises(ArtefactError, match="No space left on device"):
        await run(served, CorpusJob(source, tmp_path / "out.npy"))
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("target", "kept", "reason"),
    [("out.zip", "no", "unknown ending"), ("out.npy", "texts", "holds no texts")],
)
async def test_outputs_that_cannot_be(
    served: Served, source: Path, tmp_path: Path, target: str, kept: str, reason: str
) -> None:
    """Said before any work where possible."""
    job = CorpusJob(source, tmp_path / target, Columns(), with_text=kept == "texts")

    async def check_and_run() -> None:
        count_records(job)
        await run(served, job)

    with pytest.raises(FormatError, match=reason):
        await check_and_run()
