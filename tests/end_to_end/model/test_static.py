"""The static model: averages of token vectors, exactly; STS-B as its authors have it, through a server."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from nestvec.assembly.model import source_options
from nestvec.backends.onnx import OnnxBackend
from nestvec.config.loading import load_settings
from nestvec.errors import FormatError, ModelError
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.package import Package, prepare
from nestvec.tools.quality.remote import RemoteEmbedder, run_pairs
from nestvec.tools.quality.tasks import read_pairs
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tests.end_to_end.golden.texts import golden_texts
from tests.support.server import running_server

pytestmark = [pytest.mark.model, pytest.mark.process]
STSB = Path(__file__).parents[4] / "shared/data/stsb/test.tsv"
EXPECTED = {256: 0.759, 128: 0.753, 64: 0.730}


@pytest.fixture(scope="module")
def package() -> Package:
    """From the user's cache."""
    settings = load_settings({"offline": True, "model": "static"})
    try:
        return prepare(settings.model, source_options(settings), OnnxBackend)
    except ModelError as error:
        pytest.skip(f"static model absent, run `nestvec model pull static`: {error}")


def averages(package: Package, texts: list[str]) -> NDArray[np.float64]:
    """By numpy alone: the mean of the table's rows, unit length; (N, 256)."""
    folder = package.tokenizer.parent
    table = load_file(folder / "model.safetensors")["embedding.weight"].astype(np.float64)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids or [0] for text in texts]
    means = np.stack([table[ids].mean(axis=0) for ids in rows])
    unit: NDArray[np.float64] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def test_vectors_are_averages_and_keep_their_order(package: Package, tmp_path: Path) -> None:
    """200 texts and an empty one over HTTP, whole and cut, against numpy; STS-B at the sizes it was trained for."""
    texts = [*golden_texts(), ""]
    whole = averages(package, texts)
    with running_server(tmp_path, model="static") as server:
        for size in (256, 64):
            body = {"input": texts, "dimensions": size, "model": "wordllama"}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
            found = np.array([item["embedding"] for item in answer.json()["data"]])
            cut = whole[:, :size] / np.linalg.norm(whole[:, :size], axis=1, keepdims=True)
            np.testing.assert_allclose(found, cut, atol=1e-5)
        described = httpx.get(f"{server.url}/v1/models/static").json()
        assert described["dimensions"]["trained"] == [256, 128, 64]
        if not STSB.is_file():
            pytest.skip(f"{STSB} is absent")
        with RemoteEmbedder(server.url, key="", model="", progress=lambda _: None) as embedder:
            rows = run_pairs(embedder, read_pairs(STSB), list(EXPECTED))
    for row in rows:
        assert abs(row.score - EXPECTED[row.dimensions]) <= 0.002, row


def test_it_has_no_other_precision(package: Package) -> None:
    """There are no products to make coarser."""
    settings = load_settings({"offline": True, "model": "static"})
    assert package.spec.architecture == "static"
    for precision in (Precision.INT8, Precision.INT8_ACCURATE, Precision.BF16):
        with pytest.raises(FormatError, match="no products"):
            prepare(
                "static",
                source_options(settings),
                OnnxBackend,
                wanted=BuildOptions(precision),
            )
