"""Unknown tokens by input: those among the ids, and those that a static model leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.front.items import FEW_TOKENS, unknown_tokens
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation

from tests.support.tiny import CONFIG

OPTIONS = TokenizeOptions(Truncation.END)
UNK = 1


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3 * FEW_TOKENS), max_size=5))
def test_each_input_has_its_own(inputs: list[list[int]]) -> None:
    """One number an input, as counting does it; nothing where there is none, or no such token."""
    encoded = [Encoded(np.array(ids, np.int32), is_truncated=False) for ids in inputs]
    counts = tuple(ids.count(UNK) for ids in inputs)
    assert unknown_tokens(encoded, UNK) == (counts if any(counts) else ())
    assert unknown_tokens(encoded, None) == ()


@pytest.mark.parametrize(
    ("text", "count"), [("alpha", 0), ("", 0), ("世", 1), ("alpha 世 beta 界", 2), ("世 界", 2)]
)
def test_what_is_left_out_counts(tiny_folder: Path, text: str, count: int) -> None:
    """A static model leaves unknown tokens out: they count, and what stands for a text without any does not."""
    size = CONFIG["vocab_size"]
    for drops in (False, True):
        tokenizer = Tokenizer(
            tiny_folder / "tokenizer.json",
            max_tokens=12,
            vocabulary_size=size,
            adds_special_tokens=False,
            drops_unknown=drops,
        )
        encoded = tokenizer.encode_texts([text], OPTIONS)
        assert sum(unknown_tokens(encoded, tokenizer.told_unknown_id)) == count
        both = tokenizer.encode_texts([text, "alpha"], OPTIONS)
        assert unknown_tokens(both, tokenizer.told_unknown_id) == ((count, 0) if count else ())


def test_a_token_that_each_text_gets_tells_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    """Where the unknown token is also put around each text, as in CLIP's tokenizer, it is not told."""
    content = json.loads((tiny_folder / "tokenizer.json").read_text("utf-8"))
    content["model"]["unk_token"] = "[SEP]"
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), "utf-8")
    tokenizer = Tokenizer(path, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])
    assert tokenizer.unknown_id == 3
    assert tokenizer.told_unknown_id is None
