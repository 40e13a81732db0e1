"""Worked examples that leave no room for the text: whole examples go, from the first on, and never the text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs, resolve_prompt
from nestvec.engine.types import EmbedCall, Example, Truncation
from nestvec.errors import InputError, InputTooLongError

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


@pytest.mark.parametrize(
    ("words", "kept", "windows"), [(4, 3, 1), (7, 2, 1), (8, 2, 2), (20, 2, 4), (40, 2, 6)]
)
def test_windows_leave_half_of_each_to_the_text(
    tokenizer: Tokenizer, words: int, kept: int, windows: int
) -> None:
    """Examples stand before every window, as many as take half of it; the text is read whole."""
    text = " ".join(["alpha"] * words)
    (encoded,) = encode(tokenizer, [text], Truncation.WINDOWS)
    parts = [encoded] if encoded.windows is None else list(encoded.windows.parts)
    prefix = "".join(f"{e.query} and {e.response} " for e in EXAMPLES[len(EXAMPLES) - kept :])
    start = tokenizer.encode_texts([f"{prefix}the"], TokenizeOptions(Truncation.ERROR))[0].ids[:-1]
    assert all(part.ids[: len(start)].tolist() == start.tolist() for part in parts)
    assert encoded.dropped_tokens == 3 * (len(EXAMPLES) - kept)
    assert encoded.is_truncated is (kept < len(EXAMPLES))
    assert len(encoded.ids) == len(start) + words + 1
    if windows == 1:
        assert encoded.windows is None
    else:
        assert len(parts) > 1
        assert all(2 * (len(part.ids) - len(start) - 1) >= WINDOW - 2 * SPECIAL for part in parts)


def test_examples_that_fill_a_window_are_no_error(tokenizer: Tokenizer) -> None:
    """Where they leave a window no room for the text, the first ones go, as elsewhere."""
    (encoded,) = encode(tokenizer, ["alpha " * 40], Truncation.WINDOWS, examples=EXAMPLES * 9)
    assert encoded.windows is not None
    assert encoded.dropped_tokens == 3 * (9 * len(EXAMPLES) - 2)


@pytest.mark.parametrize("truncate", CUTS)
def test_documents_keep_their_chunks_before_examples(
    tokenizer: Tokenizer, truncate: Truncation
) -> None:
    """Of a document that is chunked late nothing is cut off as long as an example can go instead."""
    call = EmbedCall(
        ["beta", "alpha " * 3, "alpha " * 4, "red"],
        instruction="the",
        examples=EXAMPLES,
        chunks=(1, 2, 1),
    )
    options = TokenizeOptions(truncate, prompt=resolve_prompt(call, INSTRUCTED)[1])
    first, second, third = encode_inputs(tokenizer, INSTRUCTED, call, options)
    assert [part.dropped_tokens for part in (first, second, third)] == [0, 3, 0]
    assert second.spans == ((0, 1 + 6 + 1 + 3), (1 + 6 + 1 + 3, 1 + 6 + 1 + 7 + 1))
    split = EmbedCall(
        ["alpha " * 7], instruction="the", examples=EXAMPLES, splits=(((0, 18), (18, 42)),)
    )
    (document,) = encode_inputs(tokenizer, INSTRUCTED, split, options)
    assert document.ids.tolist() == second.ids.tolist()
    assert document.dropped_tokens == 3


def test_errors_name_the_chunk_of_the_call(tokenizer: Tokenizer) -> None:
    """Documents are encoded one by one, but an index is the call's."""
    call = EmbedCall(
        ["beta", "alpha " * 30, "red"], instruction="the", examples=EXAMPLES, chunks=(1, 2)
    )
    options = TokenizeOptions(Truncation.END, prompt=resolve_prompt(call, INSTRUCTED)[1])
    with pytest.raises(InputError, match="nothing is left of this chunk") as caught:
        encode_inputs(tokenizer, INSTRUCTED, call, options)
    assert caught.value.input_index == 2
