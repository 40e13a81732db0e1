"""`make gpu-check` on a machine without a GPU: every part but the server's, on the emulation with a tiny model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.types import Batch, RawOutput
from nestvec.engine.vectors.pooler import Pooler
from tokenizers import Tokenizer
from typing_extensions import override

from benchmarks.gpu import parts
from benchmarks.gpu.check import Check, report
from benchmarks.models import BASE, MINILM, QWEN, TINY, VOCABULARY, Sizes, text_of, write_model
from tests.backends.cuda.host_device import open_anywhere
from tests.support.fakes import FakeBackend, item

DECODER = replace(
    TINY, name="tiny-decoder", kv_heads=1, head_width=16, family="qwen3", pooling="lasttoken"
)
ROTARY = replace(TINY, name="tiny-rotary", family="nomic_bert")


@pytest.mark.parametrize("sizes", [TINY, DECODER, ROTARY], ids=lambda sizes: sizes.name)
def test_each_kind_of_model_is_checked_from_end_to_end(tmp_path: Path, sizes: Sizes) -> None:
    """Parity is real here; speeds are those of the emulation, so the test only looks whether they are there."""
    check = Check(
        tmp_path,
        open_anywhere,
        ("parity", "speed", "padded", "latency", "memory"),
        tokens=300,
        texts=12,
        seconds=0.3,
        peak=1e12,
        budgets=(64, 128),
    )
    text = "\n".join(report(check, [sizes], peer=False, http=False))
    assert "FAILED" not in text.replace("bfloat16, paged: FAILED: ", "")
    assert "cosine at least 0.9999" in text or "cosine at least 1.0000" in text
    assert "| 128 |" in text
    assert " 0 failed" in text
    assert "launches captured" in text


def test_operations_are_counted_as_papers_do() -> None:
    """A token takes twice as many as there are weights in the layers, with attention on top."""
    assert MINILM.weights_per_token == 6 * 12 * 384**2
    assert BASE.weights_per_token == pytest.approx(85e6, rel=0.01)
    assert QWEN.weights_per_token == pytest.approx(440e6, rel=0.01)
    short = BASE.operations(np.array([1]))
    assert short == pytest.approx(2 * BASE.weights_per_token, rel=0.01)
    assert BASE.operations(np.array([512])) > 512 * short


def test_texts_are_as_long_as_asked(tmp_path: Path) -> None:
    """A word is a token, so that peers run texts of the same lengths."""
    folder = write_model(TINY, tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    random = np.random.default_rng(0)
    for length in (3, 16, 200):
        assert len(tokenizer.encode(text_of(length, random)).ids) == length


def test_padding_makes_all_of_a_batch_as_long_as_the_longest() -> None:
    """There are as many inputs as before, but more tokens."""
    items = [item(*range(1, n + 1)) for n in (2, 9, 4, 5)]
    arrival = parts.as_padded(items, 2, is_sorted=False)
    assert [[each.tokens for each in batch] for batch in arrival] == [[9, 9], [5, 5]]
    in_order = parts.as_padded(items, 2, is_sorted=True)
    assert [[each.tokens for each in batch] for batch in in_order] == [[9, 9], [4, 4]]


def test_parity_sees_a_wrong_vector_and_a_neighbours_influence() -> None:
    """A wrong vector lowers the cosine, and a neighbour's influence raises the difference."""

    class Wrong(FakeBackend):
        @override
        def run(self, batch: Batch) -> RawOutput:
            """Run a batch; the states are a little off where it has several inputs."""
            raw = super().run(batch)
            assert raw.hidden is not None
            off = np.float32(0.5 if len(batch.lengths) > 1 else 0.0)
            return replace(raw, hidden=raw.hidden + off)

    items = [item(n, n + 1, n + 2) for n in range(1, 30)]
    same = parts.parity(FakeBackend(), FakeBackend(), Pooler("mean"), items)
    assert same.min_cosine == pytest.approx(1)
    assert same.max_difference == 0
    wrong = parts.parity(Wrong(), FakeBackend(), Pooler("mean"), items)
    assert wrong.min_cosine < 0.99
    assert wrong.max_difference > 0.01
    assert VOCABULARY > 30_000
