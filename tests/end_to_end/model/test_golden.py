"""The default model gives its golden vectors: 200 texts, alone and in mixed batches."""

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.batching_policy import BatchingOptions
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_registry import ModelRegistry
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.model_store.package import Package
from nestvec.model_store.sources.hashes import file_sha256
from numpy.typing import NDArray

from tests.end_to_end.golden.make import ABOUT, VECTORS, texts_hash
from tests.end_to_end.golden.texts import golden_texts

pytestmark = pytest.mark.model
MIN_COSINE = 0.99999
MAX_DIFFERENCE = 1e-5


@pytest.fixture(scope="module")
def service(default_package: Package) -> Iterator[EmbeddingService]:
    """The default model with two workers and the default budget."""
    spec = default_package.spec
    backend = OnnxBackend(default_package.graph, default_package.layout, BackendOptions())
    core = EngineCore(
        spec.name,
        backend,
        CoreOptions(BatchingOptions(2, 512, 1024, 500_000, 3600.0, 60.0), Pooler(spec.pooling)),
        NullObserver(),
    )
    core.start()
    tokenizer = Tokenizer(
        default_package.folder.tokenizer_path,
        max_tokens=spec.max_tokens,
        vocabulary_size=spec.vocabulary_size,
    )
    models = ModelRegistry()
    models.add(ServedModel(spec, tokenizer, core))
    limits = ServiceLimits(truncate=Truncation.END)
    embedding_service = EmbeddingService(models, limits=limits, observer=NullObserver(), threads=2)
    yield embedding_service
    embedding_service.close()


@pytest.fixture(scope="module")
def golden() -> NDArray[np.float32]:
    """Vectors `[200, 384]` that an independent implementation computed."""
    vectors: NDArray[np.float32] = np.load(VECTORS)
    return vectors


async def one_by_one(service: EmbeddingService) -> NDArray[np.float32]:
    """Return vectors of all golden texts, each embedded alone, `[200, 384]`."""
    vectors = [(await service.embed(EmbedCall([text]))).vectors for text in golden_texts()]
    return np.concatenate(vectors)


def test_the_golden_file_is_of_these_texts_and_weights(default_package: Package) -> None:
    """The golden file was made of these texts and weights; otherwise `make golden` has to run again."""
    about = json.loads(ABOUT.read_text())
    assert about["texts_sha256"] == texts_hash()
    weights = default_package.folder.tokenizer_path.parent / "model.safetensors"
    assert about["files_sha256"]["model.safetensors"] == file_sha256(weights)


async def test_each_text_alone_matches_the_reference(
    service: EmbeddingService, golden: NDArray[np.float32]
) -> None:
    """Each of the 200 texts has a cosine of at least 0.99999 to its golden vector."""
    vectors = await one_by_one(service)
    cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), golden)
    assert cosines.min() >= MIN_COSINE


async def test_batches_match_the_reference_and_the_lone_answers(
    service: EmbeddingService, golden: NDArray[np.float32]
) -> None:
    """One call of all texts and concurrent calls give the same vectors: none depends on its batch-mates."""
    texts = golden_texts()
    alone = await one_by_one(service)
    together = (await service.embed(EmbedCall(texts))).vectors
    order = np.random.default_rng(5).permutation(len(texts))
    parts = np.array_split(order, 23)
    calls = (service.embed(EmbedCall([texts[i] for i in part])) for part in parts)
    scattered = np.empty_like(together)
    for part, result in zip(parts, await asyncio.gather(*calls), strict=True):
        scattered[part] = result.vectors
    for vectors in (together, scattered):
        assert np.einsum("nd,nd->n", vectors.astype(np.float64), golden).min() >= MIN_COSINE
        assert np.abs(vectors - alone).max() < MAX_DIFFERENCE


@pytest.mark.parametrize("dimensions", [1, 32, 64, 128, 256, 383])
async def test_every_cut_is_the_renormalised_prefix(
    service: EmbeddingService, dimensions: int
) -> None:
    """Vectors of fewer dimensions are the prefix of the full ones, at unit length."""
    texts = golden_texts()[:20]
    full = (await service.embed(EmbedCall(texts))).vectors.astype(np.float64)
    cut = (await service.embed(EmbedCall(texts, dimensions=dimensions))).vectors
    prefix = full[:, :dimensions] / np.linalg.norm(full[:, :dimensions], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, prefix, atol=1e-6)


def test_the_model_is_what_its_authors_describe(default_package: Package) -> None:
    """The model has 384 dimensions, 256 tokens, mean pooling and the licence Apache-2.0."""
    spec = default_package.spec
    assert (spec.hidden_size, spec.max_tokens, spec.pooling) == (384, 256, "mean")
    assert (spec.license, spec.trained_dimensions) == ("Apache-2.0", (384,))
