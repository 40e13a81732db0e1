"""Calibration vectors of a model, from which the ranges of int8 and uint8 vectors come; kept beside its artefact.

Vectors are kept, not ranges: those depend on the dimensions asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.text.encoded import Fit
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, Truncation
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantiser, Rounding
from nestvec.errors import BackendError, FormatError
from nestvec.model_store.artefacts.activation_calibration import calibration_texts, in_batches
from nestvec.model_store.sources.disk import put_file

FILE: Final = "quantisation.npz"
BUNDLED_SOURCE: Final = "bundled"
# Short texts reach further than long ones, whose vectors are averages: each text is also taken in windows of so many
# words. Measured on all-MiniLM-L6-v2 with STS-B, SciFact and search queries: at most 0.003% of values are clipped.
WINDOW_WORDS: Final = (2, 4, 8)
# Values of calibration vectors: 1,300 of them at 384 dimensions, and no minutes at a first start of a large model.
MOST_VALUES: Final = 600_000
BATCH_TOKENS: Final = 512


def bundled_texts(hidden_size: int) -> list[str]:
    """The texts that every model is calibrated on at its first start: own-written ones, and windows of them."""
    texts = [text for text in calibration_texts(None) if not _is_repetitive(text)]
    parts = [part for text in texts for words in WINDOW_WORDS for part in _windows(text, words)]
    every = list(dict.fromkeys([*texts, *parts]))
    step = max(1, -(-len(every) * hidden_size // MOST_VALUES))
    return every[::step]


def calibration_vectors(
    backend: Backend, tokenizer: Tokenizer, outputs: Outputs, texts: Sequence[str]
) -> FloatArray:
    """Unit vectors of texts.

    Returns:
        (C, H), float32, in the order of the texts' lengths.

    Raises:
        FormatError: The graph cannot be run on them.
    """
    encoded = tokenizer.encode_texts(texts, Fit(Truncation.END))
    items = sorted((Item(ids=e.ids) for e in encoded), key=lambda item: item.tokens)
    try:
        parts = [raw_vectors(backend, b, outputs) for b in in_batches(items, BATCH_TOKENS)]
    except BackendError as error:
        raise FormatError(f"calibration failed: {error.__cause__ or error}") from error
    vectors = finish(np.concatenate(parts), dimensions=None, normalize=True)
    if not np.isfinite(vectors).all():
        raise FormatError("calibration gave vectors that are not finite")
    return vectors


def read_quantiser(artefact: Path, rounding: Rounding = Rounding.DOWN) -> Quantiser | None:
    """What a model was calibrated with; None where it was not, or the file is not whole."""
    try:
        with (artefact / FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            vectors = np.asarray(stored["vectors"], np.float32)
            source = str(stored["source"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile):
        return None
    if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():  # noqa: PLR2004 - a matrix
        return None
    return Quantiser(vectors, source, rounding)


def write_quantiser(artefact: Path, quantiser: Quantiser) -> None:
    """Keep calibration vectors; earlier ones are replaced.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    vectors = np.asarray(quantiser.vectors, np.float32)
    source = np.array(quantiser.source)
    put_file(artefact / FILE, lambda file: np.savez(file, vectors=vectors, source=source))


def _windows(text: str, words: int) -> list[str]:
    parts = text.split()
    if len(parts) <= words:
        return []
    starts = range(0, len(parts) - words + 1, words)
    return [" ".join(parts[start : start + words]) for start in starts]


def _is_repetitive(text: str) -> bool:
    """One word many times: for the ranges inside a graph, which no vector of a real text needs."""
    words = text.split()
    return len(words) > 2 and len(set(words)) == 1  # noqa: PLR2004 - "a b", "ok thanks"
