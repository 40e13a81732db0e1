"""Long texts in slices: the same tokens as of the whole, whatever the text is, or a refusal that is true."""

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.engine.text import long_texts, tokenizer
from nestvec.engine.text.documents import encode_windows
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.long_texts import Goal, LongTextEncoder
from nestvec.engine.text.slicing import SafeCuts, slices, slices_from_end
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.truncation import longest_first
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import Pair, Truncation
from nestvec.errors import DeadlineError, InputTooLongError, RequestTooLargeError
from tokenizers import (
    Encoding,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Library

from tests.support.tiny import write_tokenizer

MAX_TOKENS: Final = 12
CORPUS: Final = [
    "one two three alpha beta gamma of the red green blue invoice",
    "  blanks    in        runs                of powers",
    "QUJDREVGR0g= aGVsbG8gd29ybGQ= 123 4567 漢字かな交じり文 한국어 é ü \t\t \n\n",
]
PIECES: Final = {
    "blank": " ",
    "blanks": "  ",
    "tab": "\t",
    "newline": "\r\n",
    "wide blank": "\u3000",
    "control": "\x00",
    "zero width": "\u200b",
    "cjk": "漢字かな",
    "hangul": "한국어 ",
    "base64": "QUJDREVGR0gxMjM0",
    "unknown": "\U0001f600",
    "mark": "\u0301",
    "ligature": "\ufdfa",
    "letter": "a",
    "digits": "1234567",
    "word": "alpha ",
    "words": "The invoice, of two red: ",
    "punctuation": ".-",
    "special": "[MASK]",
    "private": "\ue000",
}
SENTENCE: Final = "one two red green of the blue"


def _texts(max_chars: int) -> st.SearchStrategy[str]:
    """Runs of pieces, `max_chars` characters at most."""
    run = st.tuples(
        st.sampled_from(sorted(PIECES)), st.sampled_from([1, 2, 3, 7, 40, 130, 700, 3000])
    )

    def build(runs: list[tuple[str, int]]) -> str:
        scale = max(1, max_chars // 6000)
        return "".join(PIECES[name] * (n * scale if n > 99 else n) for name, n in runs)[:max_chars]

    return st.lists(run, min_size=1, max_size=10).map(build)


def _wordpiece(path: Path) -> None:
    write_tokenizer(path)


def _unigram(path: Path) -> None:
    """As sentencepiece's models: blanks become one, and words begin with a mark."""
    library = Library(models.Unigram())
    library.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>"
    )
    library.train_from_iterator(CORPUS * 4, trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    library.save(str(path))


def _byte_bpe(path: Path) -> None:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "[MASK]"],
    )
    library.train_from_iterator(CORPUS * 4, trainer)
    library.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", 1)]
    )
    library.save(str(path))


def _whole_bpe(path: Path) -> None:
    """As Llama's: the text is one word, a mark in place of each blank, and bytes for what is unknown."""
    library = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
    )
    library.train_from_iterator([word for text in CORPUS * 4 for word in text.split()], trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 1)]
    )
    library.save(str(path))


MAKERS: Final[dict[str, Callable[[Path], None]]] = {
    "wordpiece": _wordpiece,
    "unigram": _unigram,
    "byte_bpe": _byte_bpe,
    "whole_bpe": _whole_bpe,
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a tiny tokenizer.json of each kind."""
    file = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    MAKERS[request.param](file)
    return file


@pytest.fixture(scope="module")
def library(path: Path) -> Library:
    """The library's own tokenizer, which cuts nothing."""
    whole = Library.from_file(str(path))
    whole.no_padding()
    whole.no_truncation()
    return whole


def _open(path: Path, *, drops_unknown: bool = False) -> Tokenizer:
    return Tokenizer(path, max_tokens=MAX_TOKENS, vocabulary_size=1000, drops_unknown=drops_unknown)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices so short that a text of some thousand characters has many."""
    monkeypatch.setattr(long_texts, "SLICE_CHARS", 150)
    monkeypatch.setattr(long_texts, "FIRST_CHARS", 300)
    monkeypatch.setattr(tokenizer, "UNSLICED_CHARS", 200)
    monkeypatch.setattr(tokenizer, "COUNTED_CHARS_PER_TOKEN", 40)


def _check(library: Library, cutting: Tokenizer, text: str, ids: list[int] | None = None) -> None:
    """Every way to cut a text gives what cutting all of its tokens would."""
    encoding = library.encode(text)
    content = library.encode(text, add_special_tokens=False).ids
    before, behind = cutting.special_token_frame(TokenizeOptions(Truncation.END))
    whole = encoding.ids if ids is None else ids
    content = content if ids is None else ids[len(before) : len(ids) - len(behind)]
    if not whole:
        return
    room = MAX_TOKENS - len(before) - len(behind)
    excess = max(0, len(content) - room)
    for truncate in (Truncation.END, Truncation.START):
        cut = content[:room] if truncate is Truncation.END else content[excess:]
        (encoded,) = cutting.encode_texts([text], TokenizeOptions(truncate))
        assert encoded.ids.tolist() == [*before, *cut, *behind]
        assert encoded.is_truncated == (excess > 0)
        assert encoded.dropped_tokens == excess or (
            encoded.drops_more and 0 < encoded.dropped_tokens < excess + 1
        )
    refusing = TokenizeOptions(Truncation.ERROR)
    if excess:
        with pytest.raises(InputTooLongError) as caught:
            cutting.encode_texts([text], refusing)
        got_tokens = caught.value.got_tokens
        assert got_tokens == len(whole) or (caught.value.is_lower_bound and got_tokens < len(whole))
    else:
        assert cutting.encode_texts([text], refusing)[0].ids.tolist() == whole
    if content and ids is None:
        (windows,) = encode_windows(cutting, [text], TokenizeOptions(Truncation.WINDOWS))
        assert windows.ids.tolist() == [*before, *content, *behind]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_texts(6_000))
@pytest.mark.usefixtures("small")
def test_slices_give_what_cutting_the_whole_gives(path: Path, library: Library, text: str) -> None:
    """Cutting at the end or the start, refusing and windows are as if the whole text had been tokenized."""
    _check(library, _open(path), text)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_texts(200_000))
def test_long_texts_give_what_cutting_the_whole_gives(
    path: Path, library: Library, text: str
) -> None:
    """The same holds for 200,000 characters, and the slices that they have."""
    _check(library, _open(path), text)


def _framed(library: Library, contents: list[list[int]]) -> list[int]:
    """Two texts' ids with the special tokens of a pair around them."""
    letter = len(library.encode("a", add_special_tokens=False).ids)
    frame = library.encode("a", "a")
    places = [place for place, of_text in enumerate(frame.special_tokens_mask) if not of_text]
    first, second = places[0], places[letter]
    before, between = frame.ids[:first], frame.ids[first + letter : second]
    return [*before, *contents[0], *between, *contents[1], *frame.ids[second + letter :]]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=_texts(3_000), second=_texts(3_000), limit=st.sampled_from([None, 5, 30]))
@pytest.mark.usefixtures("small")
def test_pairs_are_cut_as_the_whole_would_be(
    path: Path, library: Library, first: str, second: str, limit: int | None
) -> None:
    """Of two texts the longer loses its end (or start) first, exactly as if both had been tokenized."""
    cutting = _open(path)
    for truncate in (Truncation.END, Truncation.START):
        contents = [
            library.encode(text, add_special_tokens=False).ids[:end]
            for text, end in ((first, None), (second, limit))
        ]
        room = MAX_TOKENS - library.num_special_tokens_to_add(is_pair=True)
        lengths = [len(ids) for ids in contents]
        if sum(lengths) > room:
            kept = longest_first(lengths[0], lengths[1], room)
            contents = [
                ids[len(ids) - n :] if truncate is Truncation.START else ids[:n]
                for ids, n in zip(contents, kept, strict=True)
            ]
        options = TokenizeOptions(truncate, max_second_tokens=limit)
        encoded = cutting.pair_encoder(options).encode(Pair(first, second), 0)
        assert encoded.ids.tolist() == _framed(library, contents)
        lost = max(0, sum(lengths) - room)
        assert encoded.is_truncated == (lost > 0)
        assert encoded.dropped_tokens == lost or (
            encoded.drops_more and encoded.dropped_tokens < lost
        )


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_texts(3_000))
@pytest.mark.usefixtures("small")
def test_unknown_tokens_that_are_left_out_do_not_count(
    library: Library, text: str, path: Path
) -> None:
    """Where unknown tokens are left out, they settle nothing."""
    cutting = _open(path, drops_unknown=True)
    ids = [each for each in library.encode(text).ids if each != cutting.unknown_id]
    _check(library, cutting, text, ids if cutting.unknown_id is not None else None)


@pytest.mark.parametrize("run", [" ", "\t", "x"])
def test_a_sentence_behind_a_long_run_is_read(path: Path, library: Library, run: str) -> None:
    """A text of 70,000 blanks and a sentence has the sentence's tokens, and is not too long where it has no others."""
    text = run * 70_000 + " " + SENTENCE
    whole = library.encode(text).ids
    for truncate in Truncation:
        if len(whole) > MAX_TOKENS:
            return
        (encoded,) = _open(path).encode_texts([text], TokenizeOptions(truncate))
        assert encoded.ids.tolist() == whole
        assert not encoded.is_truncated


def test_the_deadline_ends_tokenizing(path: Path) -> None:
    """Between slices, and before a part that would take until after it, the deadline is looked at."""
    cutting = _open(path)
    for text in (f"{' ' * 150_000}a" * 20, "x" * 3_000_000):
        encoder = LongTextEncoder(cutting.library, SafeCuts.BETWEEN_WORDS, None)
        left_s = iter(range(3, -100, -1))
        options = TokenizeOptions(Truncation.END, ticket=WorkTicket(partial(next, left_s)))
        with pytest.raises(DeadlineError):
            encoder.encode(text, Goal(10_000_000), options, 0)


def test_what_cannot_be_told_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is read so far and no further: if its tokens are not settled there, the refusal names its characters."""
    monkeypatch.setattr(long_texts, "MAX_CHARS", 300_000)
    cutting = _open(path)
    blanks = f"one{chr(0x3000) * 400_000}two"
    for truncate in Truncation:
        encode = encode_windows if truncate is Truncation.WINDOWS else Tokenizer.encode_texts
        settled = f"{'alpha ' * 30_000}{blanks}{' alpha' * 30_000}"
        if truncate in (Truncation.END, Truncation.START):
            (encoded,) = encode(cutting, [settled], TokenizeOptions(truncate))
            assert encoded.drops_more
        if len(cutting.encode_plain([" " * 400], TokenizeOptions(truncate))[0]) > MAX_TOKENS:
            continue  # blanks are tokens
        with pytest.raises(RequestTooLargeError, match="input has 400006 characters") as caught:
            encode(cutting, ["a", blanks], TokenizeOptions(truncate))
        assert caught.value.input_index == 1


def _watched(cutting: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that fills with the length of each text that the library is given."""
    seen: list[int] = []
    encode = cutting.library.encode_batch_fast

    def watched(texts: list[str], *, add_special_tokens: bool) -> list[Encoding]:
        seen.extend(map(len, texts))
        return encode(texts, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(cutting.library, "encode_batch_fast", watched)
    return seen


def test_no_more_is_tokenized_than_a_cut_needs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million characters a slice or two are tokenized, from whichever end is kept."""
    cutting = _open(path)
    seen = _watched(cutting, monkeypatch)
    for text in ("alpha beta " * 90_000, "漢字かな" * 250_000):
        for truncate in (Truncation.END, Truncation.START, Truncation.ERROR):
            seen.clear()
            with contextlib.suppress(InputTooLongError):
                cutting.encode_texts([text], TokenizeOptions(truncate))
            if cutting.unknown_id is None or " " in text:
                assert sum(seen) < 400_000


@given(text=_texts(2_000), cuts=st.sampled_from(SafeCuts), size=st.integers(1, 300))
def test_slices_are_the_text(text: str, cuts: SafeCuts, size: int) -> None:
    """Slices follow each other without gaps, from either end, and only the last one read is open."""
    for max_chars in (10_000, 500):
        forward = list(slices(text, cuts, size, max_chars))
        backward = list(slices_from_end(text, cuts, size, max_chars))[::-1]
        is_more = len(text) > max_chars
        for parts, end in ((forward, text[:max_chars]), (backward, text[-max_chars:])):
            assert "".join(text[part.start : part.stop] for part in parts) == end
            assert sum(part.is_open for part in parts) == is_more
            stops = accumulate((part.stop - part.start for part in parts), initial=parts[0].start)
            assert [part.start for part in parts] == list(stops)[:-1]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_texts(6_000))
@pytest.mark.usefixtures("small")
def test_slices_say_where_tokens_start(path: Path, library: Library, text: str) -> None:
    """In slices, tokens start where they start in the whole text."""
    ids, starts = _open(path).encode_with_starts(text, TokenizeOptions(Truncation.ERROR))
    (whole,) = library.encode_batch([text], add_special_tokens=False)
    assert ids.tolist() == whole.ids
    expected = list(accumulate((start for start, _ in whole.offsets), max))
    assert starts.tolist() == expected


@pytest.mark.parametrize("truncate", Truncation)
def test_work_ends_between_slices(path: Path, truncate: Truncation) -> None:
    """Once nobody waits, no further slice of any text is tokenized."""
    cutting = _open(path)
    ticket = WorkTicket()
    ticket.give_up()
    options = TokenizeOptions(truncate, ticket=ticket)
    for texts in (["one two"] * 60_000, ["x y " * 100_000]):
        encode = encode_windows if truncate is Truncation.WINDOWS else Tokenizer.encode_texts
        with pytest.raises(CancelledError):
            encode(cutting, texts, options)
    with pytest.raises(CancelledError):
        cutting.encode_with_starts("one two", options)
    with pytest.raises(CancelledError):
        cutting.pair_encoder(options).encode(Pair("one", "two"), 0)


def test_what_cannot_be_cut_is_read_so_far(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the library is given more characters than it can be waited for, where it cannot be stopped."""
    monkeypatch.setattr(long_texts, "MAX_STRETCH_CHARS", 50_000)
    cutting = _open(path)
    seen = _watched(cutting, monkeypatch)
    for text in ("x" * 300_000, "\u3000" * 300_000):
        for truncate in Truncation:
            encode_all = (
                encode_windows if truncate is Truncation.WINDOWS else Tokenizer.encode_texts
            )
            with contextlib.suppress(InputTooLongError, RequestTooLargeError):
                encode_all(cutting, [text], TokenizeOptions(truncate))
    assert seen
    assert max(seen) <= 100_000
