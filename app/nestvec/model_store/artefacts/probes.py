"""Golden probes: fixed texts whose vectors are stored at export and computed again at each start.

A wrong kernel, a damaged file or a mixed-up provider shows here, before the first caller is served.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, OutputKind, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendError, ProbeError
from nestvec.model_store.artefacts.batch_runs import batches_by_length, run_batches
from nestvec.model_store.artefacts.precision import (
    BOUNDS,
    BuildOptions,
    check_quality,
    check_shapes,
)
from nestvec.model_store.preparation import Advance, count_nothing
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
    "long " * 600,  # the last, and the only one that is longer than `BATCH_TOKENS`
)
# Probes are cut to so many tokens, or to the model's own: a tokenizer that has bytes only makes thousands of some.
MAX_TOKENS: Final = 2048
# Compared once, where an artefact in a coarser precision is made.
FAR_TEXT: Final = " ".join(
    f"Line {number} of a long text is unlike the {number - 1} before it, and says so in {number % 7} words or more."
    for number in range(1, 200)
)
# Rows of several lengths share a batch up to here, as in service; a longer text, padded to which they would cost its
# square each (12 probes of 781 tokens in one batch: 13.6 s and 793 MB, by length 2.0 s), has one of its own.
BATCH_TOKENS: Final = 256

# The stored vectors come from the fp32 CPU graph. Another CPU's kernels differ by about 1e-6; CUDA sums in another
# order (TF32 is off).
TOLERANCE: Final = {"cpu": 1e-4, "cuda": 1e-3}
PUBLISHED_TOLERANCE: Final = 1e-4  # authors publish four to five digits


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """What a graph gave for the probe texts.

    Attributes:
        probes: Vectors of the probe texts, [P, D], float32.
        far: The vector of `FAR_TEXT`, [1, D]; none, [0, D], where it is not compared.
    """

    probes: FloatArray
    far: FloatArray


@dataclass(frozen=True, slots=True)
class TextRun:
    """What running some texts gave.

    Attributes:
        vectors: Unit vectors, [B, H], float32, in the order of the texts.
        alone: Whether each text had a batch of its own.
        tokens: Tokens of each text.
        token_s: Seconds that a token took in the batch of most texts, which is like those of service.
    """

    vectors: FloatArray
    alone: tuple[bool, ...]
    tokens: tuple[int, ...]
    token_s: float


def pooler_of_probes(kinds: Sequence[OutputKind], pooler: Pooler) -> Pooler:
    """Return the pooler that probes are compared by: the model's, or the mean where it gives no dense vectors."""
    return pooler if OutputKind.DENSE in kinds else Pooler("mean")


def compute_vectors(
    backend: Backend, tokenizer: Tokenizer, pooler: Pooler, texts: Sequence[str]
) -> FloatArray:
    """Compute unit vectors of texts, [B, H], float32, in batches as `run_texts` makes them; one text is a lone one.

    Raises:
        ProbeError: The graph cannot be run on them.
    """
    return run_texts(backend, tokenizer, pooler, texts, alone=len(texts) == 1).vectors


def run_texts(  # noqa: PLR0913 - what runs, what of it is made, and how
    backend: Backend,
    tokenizer: Tokenizer,
    pooler: Pooler,
    texts: Sequence[str],
    *,
    alone: bool = False,
    threads: int = 1,
    advance: Advance = count_nothing,
) -> TextRun:
    """Run texts in batches by length, so that long ones share none with short ones.

    Args:
        backend: Runs them.
        tokenizer: The model's.
        pooler: Makes a vector of token states.
        texts: At least one.
        alone: Run each as a text that is alone on an idle server.
        threads: How many batches run at once.
        advance: Told how many texts are done.

    Raises:
        ProbeError: The graph cannot be run on them.
    """
    # Of tokenizers that put nothing around a text an empty one has no token: any stands for it.
    has_none = tokenizer.unknown_id is None
    options = TokenizeOptions(Truncation.END, max_tokens=MAX_TOKENS, allows_nothing=has_none)
    encoded = tokenizer.encode_texts(texts, options)
    items = [
        Item(text.ids if len(text.ids) else np.zeros(1, np.int32), index)
        for index, text in enumerate(encoded)
    ]
    batches = (
        [[item] for item in items]
        if alone
        else batches_by_length(items, BATCH_TOKENS, backend.info.max_mixed_tokens)
    )

    def run(batch: Sequence[Item]) -> tuple[FloatArray, float]:
        """Return a batch's rows, and the seconds that it took."""
        started_s = time.monotonic()
        rows = raw_vectors(backend, batch, pooler, is_lone=alone)
        return rows, time.monotonic() - started_s

    try:
        results = run_batches(batches, run, threads, advance)
    except BackendError as error:
        raise ProbeError(
            f"the graph fails on the probe texts: {error.__cause__ or error}"
        ) from error
    order = [item.index for batch in batches for item in batch]
    raw = np.concatenate([rows for rows, _ in results])
    fullest = max(range(len(batches)), key=lambda number: len(batches[number]))
    has_own_batch = {item.index: len(batch) == 1 for batch in batches for item in batch}
    return TextRun(
        vectors=finish(raw[np.argsort(order)], dimensions=None, normalize=True),
        alone=tuple(has_own_batch[index] for index in range(len(items))),
        tokens=tuple(item.tokens for item in items),
        token_s=results[fullest][1] / sum(item.tokens for item in batches[fullest]),
    )


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


def stated_bound(build: BuildOptions, provider: str) -> dict[str, float]:
    """Return what each start holds the vectors of the probe texts to, by `check_probes`.

    Args:
        build: What was built.
        provider: Where it runs.

    Returns:
        `max_difference` of a value from the stored ones; `mean_cosine` and `min_cosine` for coarser precisions.
    """
    if build.is_exact:
        return {"max_difference": TOLERANCE[provider]}
    bounds = BOUNDS[build.precision]
    return {"mean_cosine": bounds.mean, "min_cosine": bounds.min}


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
