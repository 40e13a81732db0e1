"""Where a text begins behind its context, whatever its tokenizer counts as a word's first character."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from nestvec.engine.outputs.context import encode_in_context
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_library import GuardedLibrary
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import BackendError
from tokenizers import Encoding
from tokenizers import Tokenizer as LibraryTokenizer

from tests.engine.text.test_tokenizer import trained
from tests.support.served import SPEC


@pytest.mark.parametrize("kind", ["unigram", "bytes", "split", "whole"])
@pytest.mark.parametrize("context", ["alpha", "alpha beta ", "don't\n", "日本", "é 3,141.59 "])
def test_a_texts_own_tokens_are_those_that_reach_into_it(
    tmp_path: Path, kind: str, context: str
) -> None:
    """What is skipped reads as the context, what is pooled as the text; all of it as the two written by hand."""
    path = trained(kind, tmp_path)
    library = LibraryTokenizer.from_file(str(path))
    tokenizer = Tokenizer(path, max_tokens=256, vocabulary_size=400)
    options = TokenizeOptions(Truncation.ERROR)
    call = EmbedCall(["beta x red"], context=(context,))
    (encoded,) = encode_in_context(tokenizer, SPEC, call, options)
    made = context if context[-1].isspace() else f"{context}\n"
    (by_hand,) = tokenizer.encode_texts([f"{made}beta x red"], options)
    assert encoded.ids.tolist() == by_hand.ids.tolist()
    vocabulary = {number: token for token, number in library.get_vocab().items()}
    own = "".join(vocabulary[number] for number in encoded.ids[encoded.skip_tokens :].tolist())
    # A blank before the first word is part of its token, or one of the context's.
    assert own.translate({ord(blank): None for blank in "▁Ġ "}) == "betaxred"


def test_a_failing_tokenizer_names_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input at fault is that of the call, not the first of the one text that was tokenized."""
    tokenizer = Tokenizer(trained("bytes", tmp_path), max_tokens=256, vocabulary_size=400)
    encode_batch = GuardedLibrary.encode_batch

    def failing(self: GuardedLibrary, texts: Sequence[str], **options: bool) -> list[Encoding]:
        if "x" in texts[0]:
            raise BackendError("it failed", input_index=0)
        return encode_batch(self, texts, **options)

    monkeypatch.setattr(GuardedLibrary, "encode_batch", failing)
    call = EmbedCall(["beta", "x", "red"], context=("alpha",) * 3)
    with pytest.raises(BackendError) as caught:
        encode_in_context(tokenizer, SPEC, call, TokenizeOptions(Truncation.ERROR))
    assert caught.value.input_index == 1
