"""Embed in one process: the vectors, the schema and the errors of `nestvec embed`, from Arrow tables."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.assembly.service import build_corpus_service
from nestvec.config.loading import load_settings
from nestvec.corpus.embedders import EngineEmbedder, TextOptions
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.run import embed_corpus
from nestvec.errors import FormatError, InputError
from nestvec.ray import Embed, embed

COUNT = 40


@pytest.fixture(scope="module")
def settings(tiny_cache: Path) -> dict[str, Any]:
    """Settings of a tiny model's actors."""
    return {"cache_dir": str(tiny_cache), "offline": True, "worker_threads": 1}


@pytest.fixture(scope="module")
def made(tiny_folder: Path, settings: dict[str, Any]) -> Iterator[Embed]:
    """What an actor holds, for 8 dimensions."""
    actor = Embed(str(tiny_folder), settings=settings, dimensions=8, keep_columns=["id", "year"])
    yield actor
    actor.close()


@pytest.fixture(scope="module")
def table() -> Any:
    """Some texts, each of another length."""
    texts = [" ".join(["alpha", "beta"] * (n % 9) + [str(n)]) for n in range(COUNT)]
    years = pa.array([2000 + n for n in range(COUNT)], pa.int16())
    return pa.table({"id": [f"t{n}" for n in range(COUNT)], "text": texts, "year": years})


def matrix(column: Any) -> Any:
    """Return vectors as an array `[N, D]`."""
    return np.array(column.to_pylist(), np.float32)


def test_vectors_and_metadata_are_those_of_nestvec_embed(
    made: Embed, table: Any, tiny_folder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The same texts in a file give the same vectors, the same type and the same metadata."""
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table, source)
    service = build_corpus_service(load_settings({"model": str(tiny_folder), **settings}))
    job = CorpusJob(find_sources([str(source)]), target, options=TextOptions(dimensions=8))
    try:
        asyncio.run(embed_corpus(EngineEmbedder(service), job, lambda texts, tokens: None))
    finally:
        service.close()
    expected, found = pq.read_table(target), made(table)
    assert found.column_names == ["id", "year", "embedding"]
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert found.schema.metadata == expected.schema.metadata
    assert found.schema.field("year").type == pa.int16()
    assert found.column("id").to_pylist() == expected.column("id").to_pylist()
    assert np.abs(matrix(found["embedding"]) - matrix(expected["embedding"])).max() < 1e-5
    assert made.metadata["nestvec.dimensions"] == "8"


def test_a_batch_of_several_calls_keeps_its_order(
    made: Embed, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a batch is cut into calls, rows get their own vectors."""
    whole = matrix(made(table)["embedding"])
    monkeypatch.setattr(embed, "CALL_TEXTS", 3)
    assert np.abs(matrix(made(table)["embedding"]) - whole).max() < 1e-5


def test_no_rows_have_the_same_schema(made: Embed, table: Any) -> None:
    """A batch without rows has the columns of others, as Ray asks for them."""
    assert made(table.slice(0, 0)).schema == made(table.slice(0, 1)).schema


def test_all_columns_stay_unless_some_are_named(
    tiny_folder: Path, settings: dict[str, Any], table: Any
) -> None:
    """By default a batch keeps what it has; a column of vectors that it had is replaced."""
    actor = Embed(str(tiny_folder), settings=settings, dtype="ubinary")
    try:
        old = table.append_column("embedding", pa.array(["old"] * COUNT))
        found = actor(old)
    finally:
        actor.close()
    assert found.column_names == ["id", "text", "year", "embedding"]
    assert pa.types.is_uint8(found.schema.field("embedding").type.value_type)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a"], "year": [1]}, "the row of id a: no column 'text'; choose one with"),
        ({"id": ["a", "b"], "text": ["x", None], "year": [1, 2]}, "the row of id b: column 'text'"),
        ({"text": [5], "year": [1]}, "row 0 of a batch: column 'text' holds no text"),
        ({"id": ["a"], "text": ["x"]}, "no column 'year' to keep; there are: id, text"),
    ],
)
def test_what_cannot_be_embedded_is_named(made: Embed, columns: dict[str, Any], said: str) -> None:
    """An error names the row by its id, and the column."""
    with pytest.raises((FormatError, InputError), match=said):
        made(pa.table(columns))


def test_a_text_that_the_model_refuses_is_named_by_its_row(
    tiny_folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is too long, in a later call of its batch, is told by its id and not by its place in the call."""
    monkeypatch.setattr(embed, "CALL_TEXTS", 2)
    actor = Embed(str(tiny_folder), settings=settings, truncate="error")
    texts = ["alpha", "beta", "alpha", "alpha " * 5000, "beta"]
    try:
        with pytest.raises(FormatError, match=r"^the row of id t3: This model's maximum context"):
            actor(pa.table({"id": [f"t{n}" for n in range(5)], "text": texts}))
    finally:
        actor.close()


def test_another_space_than_the_run_s_is_refused(
    tiny_folder: Path, settings: dict[str, Any], made: Embed
) -> None:
    """A node with another model or other settings ends the run, instead of mixing spaces in one folder."""
    space = made.metadata["nestvec.space"]
    with pytest.raises(FormatError, match=f"of space {space} on this node, and of ab where"):
        Embed(str(tiny_folder), settings=settings, space="ab")


def test_templates_write_several_columns_and_are_part_of_the_space(
    tiny_folder: Path, settings: dict[str, Any], made: Embed
) -> None:
    """A template's text is what its columns make, in the space that `nestvec embed --template` has."""
    actor = Embed(str(tiny_folder), settings=settings, dimensions=8, template="{a} {b}")
    try:
        found = actor(pa.table({"a": ["alpha"], "b": ["beta"]}))
    finally:
        actor.close()
    plain = made(pa.table({"id": ["x"], "text": ["alpha beta"], "year": [1]}))
    assert np.abs(matrix(found["embedding"]) - matrix(plain["embedding"])).max() < 1e-5
    assert found.schema.metadata[b"nestvec.space"] != plain.schema.metadata[b"nestvec.space"]
