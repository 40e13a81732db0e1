"""The default model in coarser precisions: close to fp32, and the same in any batch."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, FloatArray, Truncation
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import ProviderError, QualityError
from nestvec.model_store.package import Package
from nestvec.system.cpus import cpu_model
from scipy.stats import spearmanr

from tests.end_to_end.golden.texts import golden_texts
from tests.end_to_end.model.exact_vectors import ExactPairs, exact_pairs

pytestmark = pytest.mark.model
# Without VNNI, sums of two u8 x s8 products saturate; what that costs is not measured on such a machine yet.
HAS_VNNI = bool({"avx512_vnni", "avx_vnni"} & set(cpu_model().split()))
MAX_STSB_LOSS = 0.002 if HAS_VNNI else 0.005
SHORT_CHARS = 200
MIN_MEAN_COSINE = 0.9965 if HAS_VNNI else 0.99


def service(precision: str) -> EmbeddingService:
    """Return the default model in a precision; skip where this machine cannot run it."""
    settings = load_settings({"offline": True, "precision": precision}).for_offline_tools()
    try:
        return build_local_service(settings, NullObserver())
    except ProviderError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module", params=["int8", "int8-accurate", "bf16"])
def coarse(
    request: pytest.FixtureRequest, default_package: Package
) -> Iterator[tuple[str, EmbeddingService]]:
    """Each coarser precision of the default model, probed at its start."""
    del default_package  # skips where there is none
    engine = service(request.param)
    yield request.param, engine
    engine.close()


def texts() -> list[str]:
    """Return 500 different texts, from a word to beyond the model's length; long ones once, as they take the time."""
    golden = golden_texts()
    short = [text for text in golden if len(text) <= SHORT_CHARS]
    more = [short[number % len(short)] for number in range(500 - len(golden))]
    return [f"{number} {text}" for number, text in enumerate([*golden, *more])]


async def embed(service: EmbeddingService, calls: list[list[str]]) -> FloatArray:
    """Return the vectors of several calls, made at the same time."""
    embed_calls = [EmbedCall(part, truncate=Truncation.END) for part in calls]
    results = await asyncio.gather(*(service.embed(call) for call in embed_calls))
    return np.concatenate([result.vectors for result in results])


async def test_a_vector_is_the_same_in_any_batch(coarse: tuple[str, EmbeddingService]) -> None:
    """A vector does not depend on its batch-mates, but for a rounding step here and there."""
    precision, engine = coarse
    inputs = texts()
    together = await embed(engine, [inputs])
    alone = np.concatenate([await embed(engine, [[text]]) for text in inputs])
    cosines = np.einsum("pd,pd->p", together, alone)
    assert cosines.mean() >= 0.9995
    assert cosines.min() >= 0.985
    # Kernels of bf16 choose their blocks by shape.
    if precision != "bf16":
        assert (np.abs(together - alone).max(axis=1) <= 1e-6).mean() >= 0.95


@pytest.fixture(scope="module")
def pairs(default_package: Package, tmp_path_factory: pytest.TempPathFactory) -> ExactPairs:
    """The pairs of STS-B, with vectors in fp32."""
    del default_package
    return exact_pairs(tmp_path_factory)


async def test_sts_b_hardly_suffers(
    coarse: tuple[str, EmbeddingService], pairs: ExactPairs
) -> None:
    """At most 0.2 points of Spearman are lost, with a mean cosine to fp32 that CTranslate2's int8 has too."""
    truth = np.concatenate(pairs.sides(finish(pairs.raw, dimensions=None, normalize=True)))
    texts = pairs.texts
    of_each = await embed(coarse[1], [texts[i : i + 500] for i in range(0, len(texts), 500)])
    vectors = np.concatenate(pairs.sides(of_each))
    scores = [
        spearmanr(np.einsum("pd,pd->p", *np.split(side, 2)), pairs.task.gold)[0]
        for side in (truth, vectors)
    ]
    assert scores[0] - scores[1] <= MAX_STSB_LOSS
    assert np.einsum("pd,pd->p", truth, vectors).mean() >= MIN_MEAN_COSINE


@pytest.mark.usefixtures("default_package")
def test_a_precision_that_this_model_cannot_bear_is_refused(tmp_path: Path) -> None:
    """A precision calibrated on texts unlike any language is refused before anything is served."""
    file = tmp_path / "texts"
    file.write_text("a\n" * 20)
    flags = {"offline": True, "precision": "int8", "calibration_file": str(file)}
    with pytest.raises(QualityError, match="too coarse"):
        build_local_service(load_settings(flags), NullObserver())
