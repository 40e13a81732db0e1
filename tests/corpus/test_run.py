"""Embedding whole files: records keep their order in every output format, and nothing is left half written."""

import asyncio
import dataclasses
import errno
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.corpus.embedders import EngineEmbedder, TextOptions
from nestvec.corpus.files.json_lines import JsonlWriter
from nestvec.corpus.files.npy import NpyWriter
from nestvec.corpus.files.tables import TableWriter
from nestvec.corpus.files.writer import Writer
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.search import query_options
from nestvec.corpus.store_writer import Row
from nestvec.engine.dtypes import OFFERED, OutputDtype
from nestvec.engine.types import EmbedCall, FloatArray, Truncation
from nestvec.errors import ArtefactError, FormatError, InputError

from tests.support.labelled_maps import LABELS, concept_map
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

COUNT = 2500
KINDS: dict[str, type[Any]] = {
    "parquet": TableWriter,
    "arrow": TableWriter,
    "npy": NpyWriter,
    "jsonl": JsonlWriter,
}


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend, with a queue that takes whole chunks."""
    fake = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(max_queue_tokens=10**9))
    yield fake
    fake.service.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of more than two chunks of texts, some of them too long."""
    path = tmp_path / "in.jsonl"
    rows = [{"id": f"id{n}", "text": "alpha " * (n % 20) + str(n)} for n in range(COUNT)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


async def run(served: Served, job: CorpusJob) -> CorpusSummary:
    """Embed a corpus, and check that progress adds up."""
    done: list[int] = []
    summary = await embed_corpus(
        EngineEmbedder(served.service), job, lambda texts, _: done.append(texts)
    )
    assert sum(done) == summary.texts
    return summary


def read_table(path: Path) -> Any:
    """Return the table in a Parquet or Arrow file."""
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


def read_back(path: Path) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Return the ids and vectors of an output."""
    if path.suffix in (".parquet", ".arrow"):
        table = read_table(path)
        return table["id"].to_pylist(), np.stack(table["embedding"].to_numpy())
    if path.suffix == ".npy":
        return path.with_suffix(".ids.txt").read_text().splitlines(), np.load(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["id"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "npy", "jsonl"])
async def test_all_formats_hold_the_same_vectors_in_order(
    served: Served, source: Path, tmp_path: Path, ending: str
) -> None:
    """An output holds the service's vectors in order, with ids beside them, and model and space as metadata."""
    target = tmp_path / f"out.{ending}"
    job = CorpusJob(find_sources([str(source)]), target, options=TextOptions(dimensions=5))
    assert scan_job(job).records == COUNT
    summary = await run(served, job)
    ids, vectors = read_back(target)
    assert ids == [f"id{n}" for n in range(COUNT)]
    texts = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    sample = [0, 7, 1023, 1024, COUNT - 1]
    call = EmbedCall([texts[n] for n in sample], dimensions=5, truncate=Truncation.END)
    expected = (await served.service.embed(call)).vectors
    np.testing.assert_allclose(vectors[sample], expected, atol=1e-6)
    assert (summary.texts, summary.truncated > 0) == (COUNT, True)
    metadata = (
        {k.decode(): v.decode() for k, v in read_table(target).schema.metadata.items()}
        if ending in ("parquet", "arrow")
        else json.loads(target.with_suffix(".meta.json").read_text())
    )
    assert (metadata["nestvec.model"], metadata["nestvec.space"]) == (SPEC.name, SPEC.space)
    assert metadata["nestvec.dimensions"] == "5"


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
async def test_texts_may_be_kept(served: Served, tmp_path: Path, ending: str) -> None:
    """Texts are written beside their vectors where that is asked for."""
    (tmp_path / "in.txt").write_text("alpha\nbeta")
    target = tmp_path / f"out.{ending}"
    await run(served, CorpusJob(find_sources([str(tmp_path / "in.txt")]), target, with_text=True))
    texts = (
        pq.read_table(target)["text"].to_pylist()
        if ending == "parquet"
        else [json.loads(line)["text"] for line in target.read_text().splitlines()]
    )
    assert texts == ["alpha", "beta"]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "npy", "jsonl"])
async def test_an_empty_file_gives_an_empty_one(
    served: Served, tmp_path: Path, ending: str
) -> None:
    """An empty source gives an output that can be read and has no rows."""
    (tmp_path / "in.txt").write_text("")
    target = tmp_path / f"out.{ending}"
    assert (
        await run(served, CorpusJob(find_sources([str(tmp_path / "in.txt")]), target))
    ).texts == 0
    if ending in ("parquet", "arrow"):
        assert read_table(target).num_rows == 0
    elif ending == "npy":
        assert len(np.load(target)) == 0
    else:
        assert target.read_text() == ""


async def test_a_text_that_cannot_be_embedded_names_its_line(
    served: Served, source: Path, tmp_path: Path
) -> None:
    """A text that is refused is an error that names its line, and the old output stays as it was."""
    target = tmp_path / "out.npy"
    target.write_bytes(b"old")
    with pytest.raises(
        FormatError, match=r"in\.jsonl:\d+: This model's maximum context length is 16"
    ):
        await run(
            served,
            CorpusJob(
                find_sources([str(source)]), target, options=TextOptions(truncate=Truncation.ERROR)
            ),
        )
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]


async def test_a_wrong_option_is_an_input_error(
    served: Served, source: Path, tmp_path: Path
) -> None:
    """A wrong option is an InputError that names no line."""
    with pytest.raises(InputError, match="Must be 1 to 8"):
        await run(
            served,
            CorpusJob(
                find_sources([str(source)]),
                tmp_path / "out.npy",
                options=TextOptions(dimensions=99),
            ),
        )


async def test_a_full_disk_is_a_clear_error(
    served: Served, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error that says so, and nothing half written stays."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(NpyWriter, "write", full)
    with pytest.raises(ArtefactError, match="No space left on device"):
        await run(served, CorpusJob(find_sources([str(source)]), tmp_path / "out.npy"))
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("target", "extra", "reason"),
    [("out.zip", "no", "unknown ending"), ("out.npy", "texts", "holds no texts")],
)
async def test_outputs_that_cannot_be(
    served: Served, source: Path, tmp_path: Path, target: str, extra: str, reason: str
) -> None:
    """An output that cannot be written is refused."""
    job = CorpusJob(
        find_sources([str(source)]), tmp_path / target, Columns(), with_text=extra == "texts"
    )

    async def check_and_run() -> None:
        scan_job(job)
        await run(served, job)

    with pytest.raises(FormatError, match=reason):
        await check_and_run()


async def settled(served: Served) -> int:
    """Return how many texts the backend has run, once batches that were cancelled have ended too."""
    seen = -1
    while seen != (now := sum(map(len, served.backend.batches))):
        seen = now
        await asyncio.sleep(0.1)
    return seen


@pytest.mark.parametrize("ending", ["parquet", "arrow", "npy", "jsonl"])
@pytest.mark.parametrize("cut", ["while it wrote", "while it published"])
async def test_an_interrupted_run_is_gone_on_with(
    served: Served,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    cut: str,
) -> None:
    """A resumed run writes what one uninterrupted run writes, and does not embed finished chunks again."""
    whole, target = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    job = CorpusJob(find_sources([str(source)]), target, with_text=ending != "npy")
    await run(served, dataclasses.replace(job, target=whole))
    written: list[int] = []
    with monkeypatch.context() as patched:
        if cut == "while it wrote":
            kind = KINDS[ending]
            write, calls = kind.write, itertools.count()
            monkeypatch.setattr("nestvec.corpus.pipeline.COMMIT_S", 0.0)

            def torn(self: Writer, rows: Sequence[Row], vectors: FloatArray) -> None:
                write(self, rows, vectors)
                written.append(len(rows))
                if next(calls) == 1:
                    raise asyncio.CancelledError  # written, and not yet committed

            patched.setattr(kind, "write", torn)
        else:
            move = Path.replace

            def stop(self: Path, target_path: Path) -> Path:
                moved = move(self, target_path)
                if target_path.parent == tmp_path:
                    raise asyncio.CancelledError
                return moved

            patched.setattr(Path, "replace", stop)
        with pytest.raises(asyncio.CancelledError):
            await run(served, job)
    seen = await settled(served)
    summary = await run(served, job)
    if cut == "while it wrote":
        assert summary.resumed == written[0] > 0
        again = sum(map(len, served.backend.batches)) - seen
        assert again == COUNT - written[0]
    assert summary.texts == COUNT
    ids, vectors = read_back(target)
    expected_ids, expected = read_back(whole)
    assert ids == expected_ids
    np.testing.assert_array_equal(vectors, expected)
    leftovers = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert leftovers == set()


async def test_a_changed_source_is_not_gone_on_with(
    served: Served, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft of a source that has changed since is not resumed, as its first records may be others now."""
    target = tmp_path / "out.jsonl"
    job = CorpusJob(find_sources([str(source)]), target)
    with monkeypatch.context() as patched:
        patched.setattr(JsonlWriter, "finish", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await run(served, job)
    source.write_text('{"id": "new", "text": "alpha"}')
    summary = await run(served, job)
    assert (summary.texts, summary.resumed) == (1, 0)
    assert read_back(target)[0] == ["new"]


def cancelled(*_: object) -> None:
    """Raise what Ctrl-C raises inside the event loop."""
    raise asyncio.CancelledError


async def test_standard_output_is_json_lines(
    served: Served, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output holds JSON lines in order, and nothing else."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    await run(served, CorpusJob(find_sources([str(source)]), None))
    rows = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [row["id"] for row in rows] == [f"id{n}" for n in range(COUNT)]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "npy", "jsonl"])
@pytest.mark.parametrize("dtype", OFFERED)
async def test_values_may_be_stored_smaller(
    served: Served, tmp_path: Path, ending: str, dtype: OutputDtype
) -> None:
    """Every dtype can be stored in every format, and the metadata says how to read the numbers."""
    (tmp_path / "in.txt").write_text("alpha\nbeta gamma\nred")
    target = tmp_path / f"out.{ending}"
    sources = find_sources([str(tmp_path / "in.txt")])
    await run(served, CorpusJob(sources, target, options=TextOptions(output_dtype=dtype)))
    values = read_back(target)[1]
    call = EmbedCall(["alpha", "beta gamma", "red"])
    exact = (await served.service.embed(call)).vectors
    offset = 128 if dtype in (OutputDtype.BINARY, OutputDtype.INT8) else 0
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        reach = 3.5 / np.sqrt(exact.shape[1])  # of the formula, as nothing was calibrated
        codes = np.clip((exact + reach) / (2 * reach) * 255, 0, 255)
        np.testing.assert_allclose(np.asarray(values).astype(np.int16) + offset, codes, atol=1.01)
    elif dtype.values_per_item == 1:
        np.testing.assert_allclose(values, exact, atol=1e-3)
    else:
        bytes_ = (np.asarray(values).astype(np.int16) + offset).astype(np.uint8)
        np.testing.assert_array_equal(np.unpackbits(bytes_, axis=1), exact > 0)
    if ending == "parquet":
        metadata = pq.read_schema(target).metadata
        assert metadata[b"nestvec.output_dtype"].decode() == dtype
        is_calibrated = dtype in (OutputDtype.INT8, OutputDtype.UINT8)
        assert (b"nestvec.quantization" in metadata) is is_calibrated
    if ending == "npy":
        stored = {"binary": "int8", "ubinary": "uint8"}.get(dtype.value, dtype.value)
        assert np.load(target).dtype == np.dtype(stored)


async def test_labels_are_told_with_the_vectors(tiny_folder: Path, tmp_path: Path) -> None:
    """The metadata of an output names what each value stands for; a number of dimensions is refused."""
    options = ServedOptions(max_queue_tokens=10**9, maps=(concept_map(),))
    fake = serve_fake(tiny_folder / "tokenizer.json", options)
    (tmp_path / "in.txt").write_text("alpha\nbeta")
    job = CorpusJob(
        find_sources((str(tmp_path / "in.txt"),)),
        tmp_path / "out.parquet",
        options=TextOptions(map_name="topics"),
    )
    try:
        await run(fake, job)
        metadata = pq.read_schema(tmp_path / "out.parquet").metadata
        assert json.loads(metadata[b"nestvec.labels"]) == list(LABELS)
        whole = dataclasses.replace(job, options=TextOptions(map_name="topics", dimensions=2))
        with pytest.raises(InputError, match="none come first"):
            await run(fake, whole)
    finally:
        fake.service.close()


async def test_bits_need_whole_bytes(served: Served, source: Path, tmp_path: Path) -> None:
    """A number of dimensions that does not fill whole bytes is refused before any work."""
    job = CorpusJob(
        find_sources([str(source)]),
        tmp_path / "out.npy",
        options=TextOptions(dimensions=5, output_dtype=OutputDtype.UBINARY),
    )
    with pytest.raises(InputError, match="no multiple of 8"):
        await run(served, job)


def test_a_search_asks_for_vectors_of_labels_whole() -> None:
    """A query of a store whose values have labels names no dimensions, which such a map refuses."""
    metadata = {"nestvec.space": "a", "nestvec.dimensions": "3", "nestvec.map": "topics"}
    assert query_options(metadata, None).dimensions == 3
    labelled = query_options({**metadata, "nestvec.labels": '["a", "b", "c"]'}, None)
    assert (labelled.dimensions, labelled.map_name) == (None, "topics")
