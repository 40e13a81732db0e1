"""Outputs of more than a vector a text: weights of terms, and a vector for each token."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.corpus.embedders import EngineEmbedder, OutputForm, TextOptions
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.run import embed_corpus
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import FormatError, InputError

from tests.model_store.heads.serving import CASES, write_case
from tests.model_store.heads.test_terms import add_pooling, dense
from tests.model_store.heads.texts import TEXTS
from tests.support.served import ServedOptions, serve_fake


async def output(service: EmbeddingService, tmp_path: Path, ending: str, form: OutputForm) -> Any:
    """Embed the texts into a file, and return its rows."""
    source, target = tmp_path / "in.jsonl", tmp_path / f"out.{ending}"
    source.write_text("\n".join(json.dumps({"text": text, "n": len(text)}) for text in TEXTS))
    options = TextOptions(form=form)
    job = CorpusJob(
        find_sources([str(source)]), target, columns=Columns(keep=("n",)), options=options
    )
    await embed_corpus(EngineEmbedder(service), job, lambda *_: None)
    if ending == "jsonl":
        return [json.loads(line) for line in target.read_text().splitlines()]
    table = pq.read_table(target) if ending == "parquet" else pa.ipc.open_file(target).read_all()
    metadata = table.schema.metadata
    assert metadata[b"nestvec.output"].decode() == form
    return table.to_pylist()


async def test_weights_of_terms(tmp_path: Path) -> None:
    """Sparse outputs hold the ids and weights that transformers computed, in every format that can hold them."""
    write_case(tmp_path / "model", "splade/bert")
    add_pooling(tmp_path / "model", pooling_strategy="max", activation_function="relu")
    flags = {"model": str(tmp_path / "model"), "cache_dir": tmp_path / "cache", "offline": True}
    service = build_local_service(load_settings(flags).for_offline_tools(), NullObserver())
    try:
        for ending in ("parquet", "arrow", "jsonl"):
            rows = await output(service, tmp_path, ending, OutputForm.SPARSE)
            assert [row["n"] for row in rows] == [len(text) for text in TEXTS]
            for row, expected in zip(rows, CASES["splade/bert"]["terms"], strict=True):
                terms = row["embedding"] if ending == "jsonl" else row
                pairs = zip(terms["indices"], terms["values"], strict=True)
                found = dense([{"index": index, "value": value} for index, value in pairs], 128)
                np.testing.assert_allclose(found, expected, atol=1e-4)
        with pytest.raises(FormatError, match="an npy file holds no sparse vectors"):
            await output(service, tmp_path, "npy", OutputForm.SPARSE)
    finally:
        service.close()


async def test_a_vector_for_each_token(tiny_folder: Path, tmp_path: Path) -> None:
    """Multi-vector outputs hold each token's vector, as the engine gives them."""
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(max_queue_tokens=10**9))
    try:
        call = EmbedCall(TEXTS, kind=OutputKind.TOKENS)
        result = await served.service.embed(call)
        expected = result.by_input(result.vectors)
        for ending in ("parquet", "arrow", "jsonl"):
            rows = await output(served.service, tmp_path, ending, OutputForm.MULTI_VECTOR)
            for row, vectors in zip(rows, expected, strict=True):
                np.testing.assert_allclose(row["embedding"], vectors, atol=1e-6)
    finally:
        served.service.close()


async def test_what_does_not_go_together_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """Forms that a model, a dtype or a server does not give are refused before any work."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    source = tmp_path / "in.txt"
    source.write_text("alpha")
    job = CorpusJob(find_sources([str(source)]), tmp_path / "out.jsonl")

    async def refused(options: TextOptions) -> None:
        embedder = EngineEmbedder(served.service)
        asked = CorpusJob(job.sources, job.target, options=options)
        await embed_corpus(embedder, asked, lambda *_: None)

    try:
        with pytest.raises(InputError, match="SPLADE"):
            await refused(TextOptions(form=OutputForm.SPARSE))
        with pytest.raises(InputError, match="are float32"):
            await refused(TextOptions(form=OutputForm.MULTI_VECTOR, output_dtype=OutputDtype.INT8))
        with pytest.raises(InputError, match="leave --url out"):
            async with ServerEmbedder("http://127.0.0.1:1", key="", model="") as server:
                await server.model(TextOptions(form=OutputForm.SPARSE))
    finally:
        served.service.close()
