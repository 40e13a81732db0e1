"""Worked examples that leave no room for the text: whole examples go, from the first on, and never the text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.instructions import Example, Instruct
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs, resolve_prompt
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import InputTooLongError

from tests.support.served import SPEC

# "the", and three tokens an example.
INSTRUCTED = dataclasses.replace(
    SPEC, instruct=Instruct("{instruction} ", "{query} and {response} ")
)
EXAMPLES = tuple(Example(q, r) for q, r in (("one", "two"), ("red", "green"), ("three", "four")))
WINDOW = 16
SPECIAL = 2


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    """A tokenizer of at most sixteen tokens an input."""
    return Tokenizer(tiny_folder / "tokenizer.json", max_tokens=WINDOW, vocabulary_size=128)


def encode(
    tokenizer: Tokenizer,
    inputs: Sequence[str | Sequence[int]],
    truncate: Truncation,
    examples: tuple[Example, ...] = EXAMPLES,
    spec: ModelSpec = INSTRUCTED,
) -> list[Encoded]:
    """Tokenize inputs of a call with an instruction and examples."""
    call = EmbedCall(inputs, instruction="the", examples=examples)
    options = TokenizeOptions(truncate, prompt=resolve_prompt(call, spec)[1])
    return encode_inputs(tokenizer, spec, call, options)


CUTS = [Truncation.END, Truncation.START]


@pytest.mark.parametrize("truncate", CUTS)
@pytest.mark.parametrize(
    ("words", "kept"), [(4, 3), (5, 2), (7, 2), (8, 1), (10, 1), (11, 0), (13, 0)]
)
def test_as_few_examples_go_as_must(
    tokenizer: Tokenizer, truncate: Truncation, words: int, kept: int
) -> None:
    """The last examples stay, as many as fit beside the whole text; the others are said to be dropped."""
    text = "alpha beta " * words
    text = " ".join(text.split()[:words])
    (encoded,) = encode(tokenizer, [text], truncate)
    prefix = "".join(f"{e.query} and {e.response} " for e in EXAMPLES[len(EXAMPLES) - kept :])
    options = TokenizeOptions(Truncation.ERROR)
    (expected,) = tokenizer.encode_texts([f"{prefix}the {text}"], options)
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    assert encoded.dropped_tokens == 3 * (len(EXAMPLES) - kept)
    assert encoded.is_truncated is (kept < len(EXAMPLES))


@pytest.mark.parametrize("truncate", CUTS)
def test_a_text_that_is_too_long_alone_is_cut_as_asked(
    tokenizer: Tokenizer, truncate: Truncation
) -> None:
    """Where the text is too long without any example, it is cut as without any, and all that went is counted."""
    text = "alpha " * 20
    (encoded,) = encode(tokenizer, [text], truncate)
    (expected,) = encode(tokenizer, [text], truncate, examples=())
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    assert encoded.dropped_tokens == SPECIAL + 3 * len(EXAMPLES) + 1 + 20 - WINDOW


def test_each_text_keeps_what_fits_beside_it(tokenizer: Tokenizer) -> None:
    """Texts of one call lose examples each for itself, ids like texts; and pooling leaves the prompt out alike."""
    spec = dataclasses.replace(INSTRUCTED, pools_prompt=False)
    ids = tokenizer.encode_texts(["beta " * 9], TokenizeOptions(Truncation.ERROR))[0].ids[1:-1]
    encoded = encode(tokenizer, ["alpha", "alpha " * 9, ids.tolist()], Truncation.END, spec=spec)
    assert [value.skip_tokens for value in encoded] == [1 + 9 + 1, 1 + 3 + 1, 1 + 3 + 1]
    assert [len(value.ids) for value in encoded] == [13, 15, 15]


def test_many_examples(tokenizer: Tokenizer) -> None:
    """Of very many examples the last ones are kept, and finding out how many takes few steps."""
    (encoded,) = encode(tokenizer, ["alpha"], Truncation.END, examples=EXAMPLES * 1000)
    assert len(encoded.ids) == SPECIAL + 4 * 3 + 1 + 1
    assert tokenizer.decode(encoded.ids.tolist()).endswith("the alpha")


def test_where_nothing_is_cut_it_is_refused(tokenizer: Tokenizer) -> None:
    """With truncation off a text that is too long with its examples is refused."""
    with pytest.raises(InputTooLongError):
        encode(tokenizer, ["alpha " * 9], Truncation.ERROR)
