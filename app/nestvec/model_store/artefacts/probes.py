"""Golden probes: fixed texts whose vectors are stored at export and computed again at each start.

A wrong kernel, a damaged file or a mixed-up provider shows here, before the first caller is served.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendError, ProbeError
from nestvec.model_store.artefacts.precision import BuildOptions, check_quality, check_shapes
from nestvec.model_store.sources.card import PublishedVector

PROBE_TEXTS: Final = (
    "",
    "a",
    "Hello, world!",
    "This is an example sentence",
    "The quick brown fox jumps over the lazy dog.",
    "  white\tspace \n and punctuation ... ?! ",
    "Straße, naïve café, año, żółć, ελληνικά, русский текст",
    "日本語のテキストと中文文本以及한국어",
    "emoji 🙂🚀 and a family 👨‍👩‍👧",
    "def add(a: int, b: int) -> int:\n    return a + b  # 0x1F == 31",
    "One input of middling length that says nothing of note but fills a few dozen tokens so that rows "
    "of several lengths share a batch, as they do in service.",
    "long " * 600,
)

# The stored vectors come from the fp32 CPU graph. Another CPU's kernels differ by about 1e-6; CUDA sums in another
# order (TF32 is off).
TOLERANCE: Final = {"cpu": 1e-4, "cuda": 1e-3}
PUBLISHED_TOLERANCE: Final = 1e-4  # authors publish four to five digits


def compute_vectors(
    backend: Backend, tokenizer: Tokenizer, pooler: Pooler, texts: Sequence[str]
) -> FloatArray:
    """Compute unit vectors of texts, run as one batch.

    Returns:
        Vectors, [B, H], float32.

    Raises:
        ProbeError: The graph cannot be run on them.
    """
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    try:
        items = [Item(ids=text.ids) for text in encoded]
        pooled = raw_vectors(backend, items, pooler, is_lone=len(items) == 1)
    except BackendError as error:
        raise ProbeError(
            f"the graph fails on the probe texts: {error.__cause__ or error}"
        ) from error
    return finish(pooled, dimensions=None, normalize=True)


def check_probes(
    vectors: FloatArray,
    stored: NDArray[np.float32],
    provider: str,
    build: BuildOptions | None = None,
) -> None:
    """Compare vectors of the probe texts with the stored ones.

    Args:
        vectors: Computed now, [P, H], float32.
        stored: Computed by the fp32 graph at export, [P, H], float32.
        provider: Decides the tolerance.
        build: What was built: coarser precisions are held to their bounds instead.

    Raises:
        ProbeError: Shapes differ, a value is not finite, or the largest difference is over the tolerance.
        QualityError: A coarser precision is out of its bounds.
    """
    if build is not None and not build.is_exact:
        check_quality(vectors, stored, build.precision)
        return
    check_shapes(vectors, stored)
    worst = float(np.abs(vectors - stored).max())
    limit = TOLERANCE[provider]
    if not worst <= limit:  # also catches NaN
        raise ProbeError(
            f"probe vectors on provider '{provider}' differ from the stored ones by up to {worst:.2g} "
            f"(at most {limit:g} is right): a damaged artefact or a faulty runtime; "
            "remove the artefact from the cache to export again"
        )


def check_published(
    backend: Backend, tokenizer: Tokenizer, pooler: Pooler, published: Sequence[PublishedVector]
) -> None:
    """Compare vectors with the leading values that the model's authors publish.

    Raises:
        ProbeError: A published value differs.
    """
    if not published:
        return
    vectors = compute_vectors(backend, tokenizer, pooler, [p.text for p in published])
    for vector, publication in zip(vectors, published, strict=True):
        expected = np.asarray(publication.first_values, np.float32)
        worst = float(np.abs(vector[: len(expected)] - expected).max())
        if not worst <= PUBLISHED_TOLERANCE:
            raise ProbeError(
                f"vectors differ from those the model's authors publish by up to {worst:.2g}"
            )
