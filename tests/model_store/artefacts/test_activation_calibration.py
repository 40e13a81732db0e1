"""Calibration texts, and the ranges of activations that they give."""

from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Batch, FloatArray, RawOutput, Truncation
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.activation_calibration import measure_ranges
from nestvec.model_store.artefacts.calibration_texts import (
    MAX_TEXTS,
    calibration_sha256,
    calibration_texts,
)
from typing_extensions import override

from tests.support.fakes import FakeBackend


class EchoBackend(FakeBackend):
    """Values are the token's id times 1, -1, 2, …: ranges can be told from the texts."""

    nan = False

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Return least, greatest and mean value of each channel, [3, 8]."""
        self.batches.append(batch.lengths.tolist())
        signs = np.array([1, -1, 2, -2, 3, -3, 4, -4], np.float32)
        values: FloatArray = batch.arrays["ids"][:, None].astype(np.float32) * signs
        mean = values.mean(axis=0) * np.float32(np.nan if self.nan else 1)
        return RawOutput(hidden=np.stack([values.min(axis=0), values.max(axis=0), mean]))


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    """Open the tiny tokenizer."""
    return Tokenizer(tiny_folder / "tokenizer.json", max_tokens=24, vocabulary_size=128)


def test_the_bundled_texts_are_many_and_varied() -> None:
    """They have short queries, long passages, several scripts and code; no line comes twice."""
    texts = calibration_texts(None)
    assert len(texts) >= 100
    assert len(set(texts)) == len(texts)
    assert min(map(len, texts)) < 5
    assert max(map(len, texts)) > 500
    scripts = ("а", "α", "ا", "的", "の", "하", "ह")
    assert all(any(letter in text for text in texts) for letter in scripts)


def test_texts_of_a_file(tmp_path: Path) -> None:
    """A file has one text a line; empty lines do not count; a corpus given by mistake is cut."""
    file = tmp_path / "texts"
    file.write_text("\n\n".join(f"text {n}" for n in range(MAX_TEXTS + 50)))
    texts = calibration_texts(file)
    assert (texts[0], len(texts)) == ("text 0", MAX_TEXTS)
    assert calibration_sha256(file) != calibration_sha256(None)


@pytest.mark.parametrize("content", ["one\ntwo\n", "", None])
def test_too_few_texts_or_none(tmp_path: Path, content: str | None) -> None:
    """The error names the file."""
    file = tmp_path / "texts"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FormatError, match="texts"):
        calibration_texts(file)


def test_ranges_cover_all_texts(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each channel's range spans all texts, however they are cut into batches and whichever thread runs them."""
    texts = ["alpha beta gamma", "the", "red green blue one two three", "query", "z"]
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    ids = np.concatenate([e.ids for e in encoded])
    low, high = ids.min(), ids.max()
    batches = []
    for max_tokens in (1, 10, 1000):
        monkeypatch.setattr(
            "nestvec.model_store.artefacts.activation_calibration.BATCH_TOKENS", max_tokens
        )
        backend = EchoBackend()
        channels = {"first": slice(0, 2), "second": slice(2, 8)}
        ranges = measure_ranges(backend, channels, tokenizer, texts)
        assert ranges["first"].low.tolist() == [low, -high]
        expected = [2 * high, -2 * low, 3 * high, -3 * low, 4 * high, -4 * low]
        assert ranges["second"].high.tolist() == expected
        lengths = [length for batch in backend.batches for length in batch]
        assert sorted(lengths) == sorted(len(e.ids) for e in encoded)
        batches.append(len(backend.batches))
    assert batches == sorted(batches, reverse=True)
    assert batches[-1] == 1


def test_values_that_are_not_finite_stop_calibration(tokenizer: Tokenizer) -> None:
    """A range with NaN would quantize everything to nothing; least and greatest need not show it, the mean does."""
    backend = EchoBackend()
    backend.nan = True
    with pytest.raises(FormatError, match="not finite"):
        measure_ranges(backend, {"all": slice(0, 8)}, tokenizer, ["alpha"])


def test_layout_is_packed(tokenizer: Tokenizer) -> None:
    """Calibration graphs take packed arrays, so several texts run as one batch."""
    backend = EchoBackend()
    measure_ranges(backend, {"all": slice(0, 8)}, tokenizer, ["alpha", "beta"])
    assert len(backend.batches) == 1
