"""Tokenising: what the library gives, and truncation equal to its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.text.documents import encode_chunks
from nestvec.engine.text.encoded import Fit
from nestvec.engine.text.tokenizer import MAX_CHARS_PER_TOKEN, Tokenizer
from nestvec.engine.types import Truncation
from nestvec.errors import FormatError, InputError, InputTooLongError
from tokenizers import AddedToken, Encoding, Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from tests.support.tiny import CONFIG, write_tokenizer

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(["alpha", "beta", "redgreen", "x", "é", "🙂", "日本"]), max_size=40
).map(" ".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer.json."""
    made = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    """Twelve tokens at most."""
    return Tokenizer(path, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])


@given(text=texts, direction=st.sampled_from(["right", "left"]))
def test_truncation_equals_the_librarys_own(
    path: Path, tokenizer: Tokenizer, text: str, direction: str
) -> None:
    """S40: cut ids are a prefix (or suffix) of the full ids, between the special tokens."""
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    full = len(library.encode(text).ids)
    library.enable_truncation(12, direction=direction)
    truncate = Truncation.END if direction == "right" else Truncation.START
    (found,) = tokenizer.encode_texts([text], Fit(truncate))
    assert found.ids.tolist() == library.encode(text).ids
    assert found.is_truncated == (full > 12)


@given(text=texts)
def test_error_mode_counts_what_the_library_counts(
    path: Path, tokenizer: Tokenizer, text: str
) -> None:
    """S35: the number in the error is the tokenizer's own count."""
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    full = len(library.encode(text).ids)
    if full <= 12:
        (found,) = tokenizer.encode_texts([text], Fit(Truncation.ERROR))
        assert len(found.ids) == full
    else:
        with pytest.raises(InputTooLongError, match=f"you requested {full} tokens") as caught:
            tokenizer.encode_texts(["ok", text], Fit(Truncation.ERROR))
        assert (caught.value.input_index, caught.value.limit_tokens) == (1, 12)


def test_padding_and_truncation_of_the_file_are_switched_off(tokenizer: Tokenizer) -> None:
    """The file fixes padding to 16 and truncation at 8, as the default model's own does at 128."""
    (found,) = tokenizer.encode_texts(
        ["one two three four red green blue the"], Fit(Truncation.END)
    )
    assert len(found.ids) == 10


WORDS = st.sampled_from(
    [
        "alpha",
        "beta",
        "x",
        "redgreen",
        "é",
        "日本",
        "don't",
        "3,141.59",
        "[SEP]",
        "🙂",
        "\x1c",
        "e\u0301",
    ]
)
GAPS = st.sampled_from([" ", "  ", "\n", " \n ", "\t", "\u00a0", "\u3000", ", ", ""])
long_texts = st.lists(st.tuples(WORDS, GAPS), min_size=40, max_size=160).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def trained(kind: str, folder: Path) -> Path:
    """A tokenizer of a kind, trained on a handful of words; its file."""
    pre: Any
    model: Any
    if kind == "unigram":
        model, pre = models.Unigram(), pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=80, unk_token="<unk>", show_progress=False
        )
    else:
        model = models.BPE()
        trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
        pattern = Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        pre = {
            "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
            "split": pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(pattern, "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            ),
            "whole": None,
        }[kind]
    library = LibraryTokenizer(model)
    if pre is not None:
        library.pre_tokenizer = pre
    corpus = ["alpha beta x redgreen é 日本 don't 3,141.59", "alpha alpha beta beta [SEP]\n x"]
    library.train_from_iterator(corpus * 4, trainer)
    library.add_special_tokens(["[SEP]"])
    library.add_tokens([AddedToken("beta alpha", lstrip=True, rstrip=True)])
    made = folder / f"{kind}.json"
    library.save(str(made))
    return made


@pytest.fixture(scope="module", params=["wordpiece", "unigram", "bytes", "split", "whole"])
def of_any_kind(
    request: pytest.FixtureRequest, path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LibraryTokenizer, Tokenizer]:
    """The library's tokenizer and ours, of each kind in use."""
    folder = tmp_path_factory.mktemp("kinds")
    file = path if request.param == "wordpiece" else trained(request.param, folder)
    library = LibraryTokenizer.from_file(str(file))
    library.no_padding()
    library.enable_truncation(12)
    return library, Tokenizer(file, max_tokens=12, vocabulary_size=10_000)


@given(texts=st.lists(long_texts, min_size=1, max_size=3))
def test_a_long_texts_leading_part_gives_the_tokens_of_the_whole(
    of_any_kind: tuple[LibraryTokenizer, Tokenizer], texts: list[str]
) -> None:
    """Regression: all of a text was tokenised to keep its first fifth, a tenth of an int8 engine's time."""
    library, tokenizer = of_any_kind
    found = tokenizer.encode_texts(texts, Fit(Truncation.END))
    assert [e.ids.tolist() for e in found] == [library.encode(text).ids for text in texts]
    assert [e.is_truncated for e in found] == [
        bool(library.encode(text).overflowing) for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [("alpha beta " * 200, True), ("a" * 2000, False), ("alpha" + " " * 2000 + "beta", False)],
)
def test_only_the_leading_words_of_a_long_text_are_tokenised(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, is_cut: bool
) -> None:
    """What has no space or too few tokens in its leading part is tokenised whole."""
    tokenizer = Tokenizer(path, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    seen: list[str] = []

    class Watched:
        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Encoding]:
            seen.extend(texts)
            return library.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "_library", Watched())
    tokenizer.encode_texts([text], Fit(Truncation.END))
    assert (max(len(given) for given in seen) < len(text)) is is_cut


def test_an_empty_text_is_the_special_tokens(tokenizer: Tokenizer) -> None:
    """It is embedded, not refused."""
    (found,) = tokenizer.encode_texts([""], Fit(Truncation.ERROR))
    assert found.ids.tolist() == [2, 3]


def test_ten_megabytes_are_cut_or_refused_without_being_tokenised(tokenizer: Tokenizer) -> None:
    """Only a part that surely exceeds the limit is looked at."""
    huge = "alpha " * 1_700_000
    (found,) = tokenizer.encode_texts([huge], Fit(Truncation.END))
    assert len(found.ids) == 12
    assert found.is_truncated
    with pytest.raises(InputTooLongError, match=r"you requested at least \d+ tokens"):
        tokenizer.encode_texts([huge], Fit(Truncation.ERROR))


def test_an_enormous_single_word_is_refused_or_marked_as_cut(tokenizer: Tokenizer) -> None:
    """It is one unknown token, but nobody has read all of it."""
    word = "a" * (MAX_CHARS_PER_TOKEN * 12 + 1)
    (found,) = tokenizer.encode_texts([word], Fit(Truncation.END))
    assert found.is_truncated
    with pytest.raises(InputTooLongError) as caught:
        tokenizer.encode_texts([word], Fit(Truncation.ERROR))
    assert caught.value.got_tokens > caught.value.limit_tokens


def test_the_prompt_comes_first_and_is_counted(tokenizer: Tokenizer) -> None:
    """Prefix and text are tokenised as one string; the prompt's share is known for pooling."""
    (with_prompt,) = tokenizer.encode_texts(["alpha"], Fit(Truncation.END, prefix="query : "))
    (whole,) = tokenizer.encode_texts(["query : alpha"], Fit(Truncation.END))
    assert with_prompt.ids.tolist() == whole.ids.tolist()
    assert tokenizer.count_prompt_tokens("query : ") == 3  # [CLS] query :


def test_own_ids_are_taken_as_given(tokenizer: Tokenizer) -> None:
    """No special tokens are added; long ones are cut as texts are."""
    (found,) = tokenizer.check_ids([[5, 6, 7]], Fit(Truncation.ERROR))
    assert found.ids.tolist() == [5, 6, 7]
    (cut,) = tokenizer.check_ids([list(range(20))], Fit(Truncation.END))
    assert len(cut.ids) == 12
    with pytest.raises(InputTooLongError):
        tokenizer.check_ids([list(range(20))], Fit(Truncation.ERROR))


@pytest.mark.parametrize("ids", [[], [-1], [CONFIG["vocab_size"]], [2**70]], ids=str)
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, ids: list[int]) -> None:
    """The item at fault is named."""
    with pytest.raises(InputError) as caught:
        tokenizer.check_ids([[1], ids], Fit(Truncation.END))
    assert caught.value.input_index == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "not a readable"), ("{broken", "not a readable"), ("{}", "not a readable")],
    ids=["missing", "broken", "empty"],
)
def test_a_bad_file_is_a_format_error(tmp_path: Path, content: str | None, reason: str) -> None:
    """The path is named."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FormatError, match=reason):
        Tokenizer(path, max_tokens=12, vocabulary_size=128)


def test_a_tokenizer_larger_than_the_model_is_refused(path: Path) -> None:
    """Its ids would read past the embedding table."""
    with pytest.raises(FormatError, match="only 100 embeddings"):
        Tokenizer(path, max_tokens=12, vocabulary_size=100)


def test_a_limit_without_room_for_content_is_refused(path: Path) -> None:
    """Two tokens are [CLS] and [SEP]."""
    with pytest.raises(FormatError, match="leave no room"):
        Tokenizer(path, max_tokens=2, vocabulary_size=128)


def test_a_call_may_take_fewer_tokens(tokenizer: Tokenizer) -> None:
    """Special tokens count, and are kept."""
    fit = Fit(Truncation.END, max_tokens=4)
    (found,) = tokenizer.encode_texts(["one two three four"], fit)
    (whole,) = tokenizer.encode_texts(["one two"], Fit(Truncation.END))
    assert (found.ids.tolist(), found.is_truncated) == (whole.ids.tolist(), True)
    with pytest.raises(InputTooLongError, match="maximum context length is 4"):
        tokenizer.encode_texts(["one two three four"], Fit(Truncation.ERROR, max_tokens=4))
    with pytest.raises(InputError, match="at least 3") as caught:
        tokenizer.encode_texts(["one"], Fit(Truncation.END, max_tokens=2))
    assert caught.value.param == "max_tokens"
    (more,) = tokenizer.encode_texts(["one " * 30], Fit(Truncation.END, max_tokens=100))
    assert len(more.ids) == 12


@pytest.mark.parametrize("truncate", [Truncation.END, Truncation.START])
def test_special_tokens_may_be_left_out(tokenizer: Tokenizer, truncate: Truncation) -> None:
    """Also where ids are cut."""
    words = [
        "one",
        "two",
        "three",
        "four",
        "red",
        "green",
        "blue",
        "the",
        "a",
        "of",
        "and",
        "alpha",
        "beta",
    ]
    fit = Fit(truncate, adds_special=False)
    (found,) = tokenizer.encode_texts([" ".join(words)], fit)
    kept = words[:12] if truncate is Truncation.END else words[-12:]
    assert tokenizer.decode(found.ids.tolist()) == " ".join(kept)
    (empty,) = tokenizer.encode_texts([""], fit)
    assert tokenizer.decode(empty.ids.tolist(), skips_special=False) == "[UNK]"


@given(chunks=st.lists(texts, min_size=1, max_size=4))
def test_a_documents_chunks_cover_it(tokenizer: Tokenizer, chunks: list[str]) -> None:
    """S27: spans are consecutive; a lone chunk is tokenised as any text is."""
    fit = Fit(Truncation.END)
    parts = [tokenizer.describe(chunk, adds_special=False) for chunk in chunks]
    if len(chunks) > 1 and not all(parts):
        with pytest.raises(InputError, match="no token"):
            encode_chunks(tokenizer, chunks, fit)
        return
    content = [token.id for part in parts for token in part]
    if len(chunks) > 1 and sum(map(len, parts[:-1])) >= 10:
        with pytest.raises(InputError, match="nothing is left"):
            encode_chunks(tokenizer, chunks, fit)
        return
    found = encode_chunks(tokenizer, chunks, fit)
    assert found.ids[1:-1].tolist() == content[:10]
    starts = [start for start, _ in found.spans]
    stops = [stop for _, stop in found.spans]
    assert (starts[0], stops[-1]) == (0, len(found.ids))
    assert starts[1:] == stops[:-1]
    assert [b - a for a, b in found.spans][1:-1] == [len(part) for part in parts[1:-1]]
    if len(chunks) == 1:
        (plain,) = tokenizer.encode_texts(chunks, fit)
        np.testing.assert_array_equal(found.ids, plain.ids)


def test_a_document_that_is_too_long(tokenizer: Tokenizer) -> None:
    """Refused with the first chunk beyond the limit, or cut at either end."""
    chunks = ["one two three four", "red green blue the", "alpha beta gamma delta"]
    with pytest.raises(InputTooLongError, match="you requested 14 tokens") as caught:
        encode_chunks(tokenizer, chunks, Fit(Truncation.ERROR))
    assert caught.value.input_index == 2
    end = encode_chunks(tokenizer, chunks, Fit(Truncation.END))
    assert (end.spans, end.is_truncated) == (((0, 5), (5, 9), (9, 12)), True)
    start = encode_chunks(tokenizer, chunks, Fit(Truncation.START))
    assert start.spans == ((0, 3), (3, 7), (7, 12))
    assert tokenizer.decode(start.ids.tolist()).startswith("three four red")
    with pytest.raises(InputError, match="nothing is left") as caught_lost:
        encode_chunks(tokenizer, ["one two three four"] * 4, Fit(Truncation.START))
    assert caught_lost.value.input_index == 0


def test_a_prompt_stands_before_a_documents_first_chunk(tokenizer: Tokenizer) -> None:
    """And nowhere else."""
    found = encode_chunks(tokenizer, ["one", "two"], Fit(Truncation.END, prefix="query : "))
    assert tokenizer.decode(found.ids.tolist()) == "query : one two"
    assert found.spans == ((0, 4), (4, 6))


def test_tokens_are_described(tokenizer: Tokenizer) -> None:
    """Places count characters; special tokens have none."""
    found = tokenizer.describe("alpha  red", adds_special=True)
    assert [(t.text, t.is_special, t.start, t.stop) for t in found] == [
        ("[CLS]", True, None, None),
        ("alpha", False, 0, 5),
        ("red", False, 7, 10),
        ("[SEP]", True, None, None),
    ]
    assert len(tokenizer.describe("alpha", adds_special=False)) == 1


def test_ids_become_text(tokenizer: Tokenizer) -> None:
    """With or without the special ones; strangers are refused."""
    ids = [token.id for token in tokenizer.describe("alpha beta", adds_special=True)]
    assert tokenizer.decode(ids) == "alpha beta"
    assert tokenizer.decode(ids, skips_special=False) == "[CLS] alpha beta [SEP]"
    assert tokenizer.decode([]) == ""
    with pytest.raises(InputError, match="token ids must be"):
        tokenizer.decode([10**6])


def test_a_model_may_have_no_special_tokens(path: Path) -> None:
    """Whatever its file adds; an empty text is the unknown token, so that it has a vector."""
    bare = Tokenizer(path, max_tokens=4, vocabulary_size=128, adds_special=False)
    found = bare.encode_texts(["alpha beta", "", "one two three four red"], Fit(Truncation.END))
    shown = [bare.decode(e.ids.tolist(), skips_special=False) for e in found]
    assert shown == ["alpha beta", "[UNK]", "one two three four"]
    assert [e.is_truncated for e in found] == [False, False, True]
    document = encode_chunks(bare, ["alpha", "beta gamma"], Fit(Truncation.END))
    assert document.spans == ((0, 1), (1, 3))


def test_a_text_without_any_token_is_refused_where_nothing_stands_for_it(tmp_path: Path) -> None:
    """A zero vector would be of no use."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.train_from_iterator(["alpha beta"], trainers.BpeTrainer(show_progress=False))
    file = tmp_path / "tokenizer.json"
    library.save(str(file))
    tokenizer = Tokenizer(file, max_tokens=8, vocabulary_size=1000)
    with pytest.raises(InputError, match="no token") as caught:
        tokenizer.encode_texts(["alpha", ""], Fit(Truncation.END))
    assert caught.value.input_index == 1
