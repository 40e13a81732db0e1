"""Tokenizing: what the library gives, and truncation equal to its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.text.documents import encode_chunks
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.token_report import describe_tokens
from nestvec.engine.text.tokenizer import COUNTED_CHARS_PER_TOKEN, Tokenizer
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
    """The path of a tiny tokenizer.json."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return file


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    """A tokenizer of at most twelve tokens an input."""
    return Tokenizer(path, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])


@given(text=texts, direction=st.sampled_from(["right", "left"]))
def test_truncation_equals_the_librarys_own(
    path: Path, tokenizer: Tokenizer, text: str, direction: str
) -> None:
    """Cut ids are a prefix (or suffix) of the full ids, between the special tokens, as the library cuts them."""
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    full = len(library.encode(text).ids)
    library.enable_truncation(12, direction=direction)
    truncate = Truncation.END if direction == "right" else Truncation.START
    (encoded,) = tokenizer.encode_texts([text], TokenizeOptions(truncate))
    assert encoded.ids.tolist() == library.encode(text).ids
    assert encoded.is_truncated == (full > 12)


@given(text=texts)
def test_error_mode_counts_what_the_library_counts(
    path: Path, tokenizer: Tokenizer, text: str
) -> None:
    """The number of tokens in the error is the tokenizer's own count."""
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    full = len(library.encode(text).ids)
    if full <= 12:
        (encoded,) = tokenizer.encode_texts([text], TokenizeOptions(Truncation.ERROR))
        assert len(encoded.ids) == full
    else:
        with pytest.raises(InputTooLongError, match=f"you requested {full} tokens") as caught:
            tokenizer.encode_texts(["ok", text], TokenizeOptions(Truncation.ERROR))
        assert (caught.value.input_index, caught.value.limit_tokens) == (1, 12)


def test_padding_and_truncation_of_the_file_are_switched_off(tokenizer: Tokenizer) -> None:
    """A file that fixes padding to 16 and truncation at 8 (the default model's own fixes 128) does neither here."""
    (encoded,) = tokenizer.encode_texts(
        ["one two three four red green blue the"], TokenizeOptions(Truncation.END)
    )
    assert len(encoded.ids) == 10


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
    """Train a tokenizer of a kind on a handful of words, and return its file."""
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
    file = folder / f"{kind}.json"
    library.save(str(file))
    return file


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
    """A long text's leading part gives the tokens of the whole; tokenizing all took a tenth of an int8 run's time."""
    library, tokenizer = of_any_kind
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    assert [e.ids.tolist() for e in encoded] == [library.encode(text).ids for text in texts]
    assert [e.is_truncated for e in encoded] == [
        bool(library.encode(text).overflowing) for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [("alpha beta " * 200, True), ("a" * 2000, False), ("alpha" + " " * 2000 + "beta", False)],
)
def test_only_the_leading_words_of_a_long_text_are_tokenized(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, is_cut: bool
) -> None:
    """Only the leading words of a long text are tokenized, unless they have no space or too few tokens."""
    tokenizer = Tokenizer(path, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])
    library = LibraryTokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    seen: list[str] = []

    class Watched:
        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[Encoding]:
            seen.extend(texts)
            return library.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "library", Watched())
    tokenizer.encode_texts([text], TokenizeOptions(Truncation.END))
    assert (max(len(text) for text in seen) < len(text)) is is_cut


def test_an_empty_text_is_the_special_tokens(tokenizer: Tokenizer) -> None:
    """An empty text is the special tokens: it is embedded, not refused."""
    (encoded,) = tokenizer.encode_texts([""], TokenizeOptions(Truncation.ERROR))
    assert encoded.ids.tolist() == [2, 3]


def test_ten_megabytes_are_cut_or_refused_without_being_tokenized(tokenizer: Tokenizer) -> None:
    """Of a huge text only a part that surely exceeds the limit is tokenized."""
    huge = "alpha " * 1_700_000
    (encoded,) = tokenizer.encode_texts([huge], TokenizeOptions(Truncation.END))
    assert len(encoded.ids) == 12
    assert encoded.is_truncated
    with pytest.raises(InputTooLongError, match=r"you requested at least \d+ tokens"):
        tokenizer.encode_texts([huge], TokenizeOptions(Truncation.ERROR))


@pytest.mark.parametrize("truncate", list(Truncation))
def test_an_enormous_single_word_is_one_unknown_token(
    tokenizer: Tokenizer, truncate: Truncation
) -> None:
    """An enormous word is one token, which is neither too long nor cut: characters are no measure of tokens."""
    word = "a" * (COUNTED_CHARS_PER_TOKEN * 12 + 1)
    (encoded,) = tokenizer.encode_texts([word], TokenizeOptions(truncate))
    assert encoded.ids.tolist() == [2, tokenizer.unknown_id, 3]
    assert not encoded.is_truncated


def test_the_prompt_comes_first_and_is_counted(tokenizer: Tokenizer) -> None:
    """Prompt and text are tokenized as one string, and the prompt's tokens are known to the pooling."""
    (with_prompt,) = tokenizer.encode_texts(
        ["alpha"], TokenizeOptions(Truncation.END, prompt="query : ")
    )
    (whole,) = tokenizer.encode_texts(["query : alpha"], TokenizeOptions(Truncation.END))
    assert with_prompt.ids.tolist() == whole.ids.tolist()
    assert tokenizer.count_prompt_tokens("query : ") == 3  # [CLS] query :


def test_own_ids_are_taken_as_given(tokenizer: Tokenizer) -> None:
    """Token ids get no special tokens, and long inputs are cut as texts are."""
    (encoded,) = tokenizer.encode_ids([[5, 6, 7]], TokenizeOptions(Truncation.ERROR))
    assert encoded.ids.tolist() == [5, 6, 7]
    (cut,) = tokenizer.encode_ids([list(range(20))], TokenizeOptions(Truncation.END))
    assert len(cut.ids) == 12
    with pytest.raises(InputTooLongError):
        tokenizer.encode_ids([list(range(20))], TokenizeOptions(Truncation.ERROR))


@pytest.mark.parametrize("ids", [[], [-1], [CONFIG["vocab_size"]], [2**70]], ids=str)
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer, ids: list[int]) -> None:
    """An id outside the vocabulary is refused, and the error names the input."""
    with pytest.raises(InputError) as caught:
        tokenizer.encode_ids([[1], ids], TokenizeOptions(Truncation.END))
    assert caught.value.input_index == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "not a readable"), ("{broken", "not a readable"), ("{}", "not a readable")],
    ids=["missing", "broken", "empty"],
)
def test_a_bad_file_is_a_format_error(tmp_path: Path, content: str | None, reason: str) -> None:
    """A missing or broken file is a FormatError that names the path."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FormatError, match=reason):
        Tokenizer(path, max_tokens=12, vocabulary_size=128)


def test_a_tokenizer_larger_than_the_model_is_refused(path: Path) -> None:
    """A tokenizer with more tokens than embeddings is refused: its ids would read past the table."""
    with pytest.raises(FormatError, match="only 100 embeddings"):
        Tokenizer(path, max_tokens=12, vocabulary_size=100)


def test_a_limit_without_room_for_content_is_refused(path: Path) -> None:
    """A limit of two tokens is refused, for those are [CLS] and [SEP]."""
    with pytest.raises(FormatError, match="leave no room"):
        Tokenizer(path, max_tokens=2, vocabulary_size=128)


def test_a_call_may_take_fewer_tokens(tokenizer: Tokenizer) -> None:
    """A call may lower the limit; special tokens count, and are kept."""
    options = TokenizeOptions(Truncation.END, max_tokens=4)
    (encoded,) = tokenizer.encode_texts(["one two three four"], options)
    (whole,) = tokenizer.encode_texts(["one two"], TokenizeOptions(Truncation.END))
    assert (encoded.ids.tolist(), encoded.is_truncated) == (whole.ids.tolist(), True)
    with pytest.raises(InputTooLongError, match="maximum context length is 4"):
        tokenizer.encode_texts(
            ["one two three four"], TokenizeOptions(Truncation.ERROR, max_tokens=4)
        )
    with pytest.raises(InputError, match="at least 3") as caught:
        tokenizer.encode_texts(["one"], TokenizeOptions(Truncation.END, max_tokens=2))
    assert caught.value.param == "max_tokens"
    (more,) = tokenizer.encode_texts(["one " * 30], TokenizeOptions(Truncation.END, max_tokens=100))
    assert len(more.ids) == 12


@pytest.mark.parametrize("truncate", [Truncation.END, Truncation.START])
def test_special_tokens_may_be_left_out(tokenizer: Tokenizer, truncate: Truncation) -> None:
    """A call may leave special tokens out, also where ids are cut."""
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
    options = TokenizeOptions(truncate, adds_special_tokens=False)
    (encoded,) = tokenizer.encode_texts([" ".join(words)], options)
    kept = words[:12] if truncate is Truncation.END else words[-12:]
    assert tokenizer.decode(encoded.ids.tolist()) == " ".join(kept)
    (empty,) = tokenizer.encode_texts([""], options)
    assert tokenizer.decode(empty.ids.tolist(), skips_special_tokens=False) == "[UNK]"


@given(chunks=st.lists(texts, min_size=1, max_size=4))
def test_a_documents_chunks_cover_it(tokenizer: Tokenizer, chunks: list[str]) -> None:
    """The spans of a document's chunks are consecutive, and a lone chunk is tokenized as any text is."""
    options = TokenizeOptions(Truncation.END)
    parts = [describe_tokens(tokenizer, chunk, adds_special_tokens=False) for chunk in chunks]
    if len(chunks) > 1 and not all(parts):
        with pytest.raises(InputError, match="no token"):
            encode_chunks(tokenizer, chunks, options)
        return
    content = [token.id for part in parts for token in part]
    if len(chunks) > 1 and sum(map(len, parts[:-1])) >= 10:
        with pytest.raises(InputError, match="nothing is left"):
            encode_chunks(tokenizer, chunks, options)
        return
    encoded = encode_chunks(tokenizer, chunks, options)
    assert encoded.ids[1:-1].tolist() == content[:10]
    starts = [start for start, _ in encoded.spans]
    stops = [stop for _, stop in encoded.spans]
    assert (starts[0], stops[-1]) == (0, len(encoded.ids))
    assert starts[1:] == stops[:-1]
    assert [b - a for a, b in encoded.spans][1:-1] == [len(part) for part in parts[1:-1]]
    if len(chunks) == 1:
        (plain,) = tokenizer.encode_texts(chunks, options)
        np.testing.assert_array_equal(encoded.ids, plain.ids)


def test_a_document_that_is_too_long(tokenizer: Tokenizer) -> None:
    """A long document is refused with the first chunk beyond the limit, or cut at either end."""
    chunks = ["one two three four", "red green blue the", "alpha beta gamma delta"]
    with pytest.raises(InputTooLongError, match="you requested 14 tokens") as caught:
        encode_chunks(tokenizer, chunks, TokenizeOptions(Truncation.ERROR))
    assert caught.value.input_index == 2
    end = encode_chunks(tokenizer, chunks, TokenizeOptions(Truncation.END))
    assert (end.spans, end.is_truncated) == (((0, 5), (5, 9), (9, 12)), True)
    start = encode_chunks(tokenizer, chunks, TokenizeOptions(Truncation.START))
    assert start.spans == ((0, 3), (3, 7), (7, 12))
    assert tokenizer.decode(start.ids.tolist()).startswith("three four red")
    with pytest.raises(InputError, match="nothing is left") as caught_lost:
        encode_chunks(tokenizer, ["one two three four"] * 4, TokenizeOptions(Truncation.START))
    assert caught_lost.value.input_index == 0


def test_a_prompt_stands_before_a_documents_first_chunk(tokenizer: Tokenizer) -> None:
    """A prompt stands before a document's first chunk and nowhere else."""
    encoded = encode_chunks(
        tokenizer, ["one", "two"], TokenizeOptions(Truncation.END, prompt="query : ")
    )
    assert tokenizer.decode(encoded.ids.tolist()) == "query : one two"
    assert encoded.spans == ((0, 4), (4, 6))


def test_tokens_are_described(tokenizer: Tokenizer) -> None:
    """Tokens are described with their bounds in characters; special tokens have none."""
    encoded = describe_tokens(tokenizer, "alpha  red", adds_special_tokens=True)
    assert [(t.text, t.is_special, t.start, t.stop) for t in encoded] == [
        ("[CLS]", True, None, None),
        ("alpha", False, 0, 5),
        ("red", False, 7, 10),
        ("[SEP]", True, None, None),
    ]
    assert len(describe_tokens(tokenizer, "alpha", adds_special_tokens=False)) == 1


def test_ids_become_text(tokenizer: Tokenizer) -> None:
    """Ids become text with or without the special tokens; ids outside the vocabulary are refused."""
    ids = [token.id for token in describe_tokens(tokenizer, "alpha beta", adds_special_tokens=True)]
    assert tokenizer.decode(ids) == "alpha beta"
    assert tokenizer.decode(ids, skips_special_tokens=False) == "[CLS] alpha beta [SEP]"
    assert tokenizer.decode([]) == ""
    with pytest.raises(InputError, match="token ids must be"):
        tokenizer.decode([10**6])


def test_a_model_may_have_no_special_tokens(path: Path) -> None:
    """A model may do without its file's special tokens; an empty text is the unknown token, so that it has a vector."""
    bare = Tokenizer(path, max_tokens=4, vocabulary_size=128, adds_special_tokens=False)
    encoded = bare.encode_texts(
        ["alpha beta", "", "one two three four red"], TokenizeOptions(Truncation.END)
    )
    shown = [bare.decode(e.ids.tolist(), skips_special_tokens=False) for e in encoded]
    assert shown == ["alpha beta", "[UNK]", "one two three four"]
    assert [e.is_truncated for e in encoded] == [False, False, True]
    document = encode_chunks(bare, ["alpha", "beta gamma"], TokenizeOptions(Truncation.END))
    assert document.spans == ((0, 1), (1, 3))


def test_a_text_without_any_token_is_refused_where_nothing_stands_for_it(tmp_path: Path) -> None:
    """A text without any token is refused where no unknown token stands for it."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.train_from_iterator(["alpha beta"], trainers.BpeTrainer(show_progress=False))
    file = tmp_path / "tokenizer.json"
    library.save(str(file))
    tokenizer = Tokenizer(file, max_tokens=8, vocabulary_size=1000)
    with pytest.raises(InputError, match="no token") as caught:
        tokenizer.encode_texts(["alpha", ""], TokenizeOptions(Truncation.END))
    assert caught.value.input_index == 1
