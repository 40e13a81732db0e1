"""A part of a long text settles its first tokens only where no later character could change them.

The tokenizers are made so that the end of a text without any boundary decides on its first token.
"""

import itertools
import random
from pathlib import Path
from typing import Final

import pytest
from nestvec.engine.text import long_texts, tokenizer
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Library

MAX_TOKENS: Final = 12
FIRST: Final = 250  # characters of the first part
SLICE: Final = 300


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so short that a text of some thousand characters is cut."""
    monkeypatch.setattr(long_texts, "SLICE_CHARS", SLICE)
    monkeypatch.setattr(long_texts, "FIRST_CHARS", FIRST)
    monkeypatch.setattr(long_texts, "MARGIN_TOKENS", 16)
    monkeypatch.setattr(tokenizer, "UNSLICED_CHARS", 200)
    monkeypatch.setattr(tokenizer, "COUNTED_CHARS_PER_TOKEN", 20)


def check(library: Library, folder: Path, text: str) -> bool:
    """Compare what is kept of a text with what is kept of all its tokens; whether its end was not read."""
    library.save(str(folder / "tokenizer.json"))
    cutting = Tokenizer(folder / "tokenizer.json", max_tokens=MAX_TOKENS, vocabulary_size=10_000)
    ids = library.encode(text).ids
    (first,) = cutting.encode_texts([text], TokenizeOptions(Truncation.END))
    assert first.ids.tolist() == ids[:MAX_TOKENS]
    (last,) = cutting.encode_texts([text], TokenizeOptions(Truncation.START))
    assert last.ids.tolist() == ids[-MAX_TOKENS:]
    return first.drops_more


def unigram(scores: dict[str, float]) -> Library:
    """A Unigram of these pieces, without a normalizer: a text is one word."""
    return Library(models.Unigram([("<unk>", -50.0), *scores.items()], unk_id=0))


def test_the_best_path_depends_on_the_end(tmp_path: Path) -> None:
    """Pieces of three letters fit in three phases, and what is left over at the end decides on the phase."""
    scores = {"abc": -3.0, "cab": -3.0, "Z": -2.0, "Zab": -2.5, "a": -1.0, "Y": -1.0}
    library = unigram(scores)
    for shift in range(3):
        text = "Y" * shift + "Z" + "abc" * 1000 + "ab"
        assert library.encode(text).tokens[shift] == "Zab"
        assert library.encode(text[:-1]).tokens[shift] == "Z"
        check(library, tmp_path, text)


@pytest.mark.parametrize("limit", [100, 250, 400, 100_000])
def test_a_word_becomes_unknown_by_its_end(tmp_path: Path, limit: int) -> None:
    """WordPiece has one unknown token for a word that is too long, or has an unknown character anywhere."""
    vocabulary = {"[UNK]": 0, "a": 1, "##a": 2}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=limit)
    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    for word in ("a" * 700, "a" * 700 + "b", "a" * min(limit // 2, 700)):
        check(library, tmp_path, word + "." + "a" * 90)
        check(library, tmp_path, ("a" * 90 + ".") * 9 + word)


def test_the_order_of_merges_depends_on_the_end(tmp_path: Path) -> None:
    """Of two merges the later one in the text comes first, and so on to its start: a chain through the whole text."""
    letters = [chr(0x4E00 + number) for number in range(3000)]
    pairs = list(itertools.pairwise(letters))[::-1]
    pieces = [*letters, *(a + b for a, b in pairs)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    library = Library(models.BPE(vocab=vocabulary, merges=pairs))
    text = "".join(letters)
    assert library.encode(text).tokens[0] != library.encode(text[:-1]).tokens[0]
    check(library, tmp_path, text)
    check(library, tmp_path, text[:-1])


def test_digits_in_groups_from_the_end(tmp_path: Path) -> None:
    """A pre-tokenizer that looks ahead may count from the end of a run."""
    vocabulary = {str(number): number for number in range(1000)}
    library = Library(models.WordLevel(vocabulary, unk_token="0"))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(\d{3})*$)"), "isolated")
    for length in (3000, 3001, 3002):
        check(library, tmp_path, "123456789" * (length // 9) + "1" * (length % 9))


@pytest.mark.parametrize("seed", range(24))
def test_periodic_texts_of_random_pieces(tmp_path: Path, seed: int) -> None:
    """Random pieces over few letters with scores that nearly agree, and texts that repeat with another end."""
    chance = random.Random(seed)
    period = "abcde"[: chance.randint(2, 5)]
    doubled = period * 3
    pieces = {
        doubled[start : start + chance.randint(2, 6)]: -3.0 - chance.randint(0, 2) * 1e-4
        for start in range(len(period))
    }
    singles = {letter: -chance.choice([1.0, 4.0, 30.0]) for letter in period}
    starts = {f"Z{period[:size]}": -2.0 for size in range(chance.randint(0, len(period)) + 1)}
    ends = {f"{period[-size:]}X": -1.0 for size in range(1, chance.randint(1, len(period)) + 1)}
    library = unigram({**singles, **pieces, **starts, **ends})
    for tail in range(len(period)):
        for end in ("", "X", "aX"):
            check(library, tmp_path, f"Z{period * 700}{period[:tail]}{end}")


def test_a_text_whose_end_changes_nothing_is_not_read_to_it(tmp_path: Path) -> None:
    """Ordinary pieces settle early."""
    library = unigram({"ab": -2.0, "a": -3.0, "b": -3.0, "ba": -2.5})
    assert check(library, tmp_path, "ab" * 5_000)
