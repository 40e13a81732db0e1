"""The static model: its vectors are averages of token vectors, and STS-B is what its authors report."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
from nestvec.assembly.sources import source_options
from nestvec.backends.onnx import OnnxBackend
from nestvec.config.loading import load_settings
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.errors import FormatError, ModelError
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package, load_package
from nestvec.tools.quality.remote import RemoteScore, RemoteVectors, score_pairs
from nestvec.tools.quality.tasks import read_pairs
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tests.end_to_end.golden.texts import golden_texts
from tests.support.data_sets import data_set
from tests.support.server import running_server

pytestmark = [pytest.mark.model, pytest.mark.process]
STSB = data_set("stsb/test.tsv")
EXPECTED = {256: 0.759, 128: 0.753, 64: 0.730}


@pytest.fixture(scope="module")
def package() -> Package:
    """The static model from the user's cache."""
    settings = load_settings({"offline": True, "model": "static"})
    try:
        return load_package(settings.model, source_options(settings), OnnxBackend)
    except ModelError as error:
        pytest.skip(f"static model absent, run `nestvec model pull static`: {error}")


def averages(package: Package, texts: list[str]) -> NDArray[np.float64]:
    """Return the means of the table's rows at unit length, `[N, 256]`, by numpy alone."""
    folder = package.folder.tokenizer_path.parent
    table = load_file(folder / "model.safetensors")["embedding.weight"].astype(np.float64)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids or [0] for text in texts]
    means = np.stack([table[ids].mean(axis=0) for ids in rows])
    unit: NDArray[np.float64] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def test_vectors_are_averages_and_keep_their_order(package: Package, tmp_path: Path) -> None:
    """Vectors over HTTP are numpy's averages, whole and cut; STS-B is right at the sizes that were trained."""
    texts = [*golden_texts(), ""]
    whole = averages(package, texts)
    with running_server(tmp_path, model="static") as server:
        for size in (256, 64):
            body = {"input": texts, "dimensions": size, "model": "wordllama"}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
            vectors = np.array([item["embedding"] for item in answer.json()["data"]])
            prefix = whole[:, :size] / np.linalg.norm(whole[:, :size], axis=1, keepdims=True)
            np.testing.assert_allclose(vectors, prefix, atol=1e-5)
        described = httpx.get(f"{server.url}/v1/models/static").json()
        assert described["dimensions"]["trained"] == [256, 128, 64]
        if not STSB.is_file():
            pytest.skip(f"{STSB} is absent")
        scores = asyncio.run(pair_scores(server.url))
    for score in scores:
        assert abs(score.score - EXPECTED[score.dimensions]) <= 0.002, score


async def pair_scores(url: str) -> list[RemoteScore]:
    """Return a server's figures on STS-B, at the sizes that have a published one."""
    async with ServerEmbedder(url, key="", model="") as server:
        return await score_pairs(
            RemoteVectors(server, lambda _: None), read_pairs(STSB), list(EXPECTED), "sts"
        )


def test_it_has_no_other_precision(package: Package) -> None:
    """Coarser precisions are refused, since there are no products to make coarser."""
    settings = load_settings({"offline": True, "model": "static"})
    assert package.spec.architecture == "static"
    for precision in (Precision.INT8, Precision.INT8_ACCURATE, Precision.BF16):
        with pytest.raises(FormatError, match="no products"):
            load_package(
                "static",
                source_options(settings),
                OnnxBackend,
                build=BuildOptions(precision),
            )
