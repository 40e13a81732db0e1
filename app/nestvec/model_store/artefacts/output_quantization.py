"""Calibration vectors of a model, from which the ranges of int8 and uint8 outputs come; kept beside its artefact.

Vectors are kept, not ranges: those depend on the dimensions that a request asks for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer, Rounding
from nestvec.errors import BackendError, FormatError
from nestvec.model_store.artefacts.batch_runs import batches_by_length, run_batches
from nestvec.model_store.artefacts.calibration_texts import calibration_texts
from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.model_store.preparation import Advance, count_nothing

QUANTIZER_FILE: Final = "quantisation.npz"
BUNDLED_SOURCE: Final = "bundled"
# Short texts reach further than long ones, whose vectors are averages: each text is also taken in windows of so many
# words. Measured on all-MiniLM-L6-v2 with STS-B, SciFact and search queries: at most 0.003% of values are clipped.
WINDOW_WORDS: Final = (2, 4, 8)
# Values of calibration vectors: 1,300 of them at 384 dimensions, and no minutes at a first start of a large model.
MAX_VALUES: Final = 600_000
BATCH_TOKENS: Final = 512


def output_calibration_texts(hidden_size: int) -> list[str]:
    """Return the texts that every model is calibrated on at its first start: the bundled ones, and windows of them.

    Args:
        hidden_size: Dimensions of the model's vectors: wide ones take fewer texts.
    """
    texts = [text for text in calibration_texts(None) if not _is_repetitive(text)]
    parts = [part for text in texts for words in WINDOW_WORDS for part in _windows(text, words)]
    distinct = list(dict.fromkeys([*texts, *parts]))
    step = max(1, -(-len(distinct) * hidden_size // MAX_VALUES))
    return distinct[::step]


def calibration_vectors(
    backend: Backend,
    tokenizer: Tokenizer,
    pooler: Pooler,
    texts: Sequence[str],
    *,
    threads: int = 1,
    advance: Advance = count_nothing,
) -> FloatArray:
    """Compute unit vectors of texts.

    Args:
        backend: Runs them.
        tokenizer: The model's.
        pooler: Makes a vector of token states.
        texts: At least one.
        threads: How many batches run at once.
        advance: Told how many texts are done.

    Returns:
        [C, H], float32, in the order of the texts' lengths.

    Raises:
        FormatError: The graph cannot be run on them.
    """
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    items = [Item(ids=text.ids) for text in encoded]
    batches = batches_by_length(items, BATCH_TOKENS, backend.info.max_mixed_tokens)
    try:
        parts = run_batches(
            batches, lambda batch: raw_vectors(backend, batch, pooler), threads, advance
        )
    except BackendError as error:
        raise FormatError(f"calibration failed: {error.__cause__ or error}") from error
    vectors = finish(np.concatenate(parts), dimensions=None, normalize=True)
    if not np.isfinite(vectors).all():
        raise FormatError("calibration gave vectors that are not finite")
    return vectors


def read_quantizer(artefact: Path, rounding: Rounding = Rounding.DOWN) -> Quantizer | None:
    """Read the quantizer that a model was calibrated to; None where it was not, or the file is not whole."""
    try:
        with (
            (artefact / QUANTIZER_FILE).open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            vectors = np.asarray(stored["vectors"], np.float32)
            source = str(stored["source"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile):
        return None
    if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():  # noqa: PLR2004 - a matrix
        return None
    return Quantizer(vectors, source, rounding)


def write_quantizer(artefact: Path, quantizer: Quantizer) -> None:
    """Keep a quantizer's calibration vectors beside an artefact; earlier ones are replaced.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    vectors = np.asarray(quantizer.vectors, np.float32)
    source = np.array(quantizer.source)
    with atomic_cache_write(artefact / QUANTIZER_FILE) as file:
        np.savez(file, vectors=vectors, source=source)


def _windows(text: str, words: int) -> list[str]:
    """Cut a text into windows of so many words; none where it has no more."""
    parts = text.split()
    if len(parts) <= words:
        return []
    starts = range(0, len(parts) - words + 1, words)
    return [" ".join(parts[start : start + words]) for start in starts]


def _is_repetitive(text: str) -> bool:
    """Whether a text is one word many times: for ranges inside a graph, which no vector of a real text needs."""
    words = text.split()
    return len(words) > 2 and len(set(words)) == 1  # noqa: PLR2004 - "a b", "ok thanks"
