"""The tokenizers library: long texts leave Python to other threads, and are what short ones are."""

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest
from nestvec.engine.text.token_report import describe_tokens
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_library import SHORT_CHARS, SHORT_IDS, token_spans
from tokenizers import Encoding

from tests.support.tiny import CONFIG, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tiny tokenizer."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return Tokenizer(file, max_tokens=12, vocabulary_size=CONFIG["vocab_size"])


def held_share(work: Callable[[], object]) -> float:
    """Return the longest time that another thread could not run, as a share of the time that the work took."""
    worst_s = 0.0
    is_done = threading.Event()

    def beat() -> None:
        nonlocal worst_s
        last_s = time.perf_counter()
        while not is_done.is_set():
            time.sleep(0.001)
            now_s = time.perf_counter()
            worst_s, last_s = max(worst_s, now_s - last_s), now_s

    other = threading.Thread(target=beat)
    other.start()
    time.sleep(0.02)
    worst_s, began_s = 0.0, time.perf_counter()
    work()
    took_s = time.perf_counter() - began_s
    is_done.set()
    other.join()
    return worst_s / took_s


@pytest.mark.parametrize("what", ["encode", "decode"])
def test_long_work_leaves_python_to_others(tokenizer: Tokenizer, what: str) -> None:
    """No thread waits for most of the time that a long text takes; the best of several, as machines are busy."""
    library = tokenizer.library
    text = "alpha beta gamma, " * 8_000
    ids = library.encode(text).ids * 4
    work: dict[str, Callable[[], object]] = {
        "encode": lambda: library.encode(text),
        "decode": lambda: library.decode(ids, skip_special_tokens=False),
    }
    assert any(held_share(work[what]) < 0.6 for _ in range(8))


class LongEncoding:
    """An encoding of many tokens, of which nothing may be asked at once."""

    def __len__(self) -> int:
        return SHORT_IDS + 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Keeps Python's global lock for as long as it takes."""
        raise AssertionError

    def token_to_chars(self, index: int) -> tuple[int, int] | None:
        """Return where a token lies; None for the special one."""
        return (index, index + 1) if index else None


def test_spans_of_many_tokens_are_read_one_by_one() -> None:
    """The library gives all of them in one call, during which no other thread runs."""
    spans = token_spans(cast("Encoding", LongEncoding())).tolist()
    assert spans == [[0, 0], *([n, n + 1] for n in range(1, SHORT_IDS + 1))]


def test_long_texts_are_what_short_ones_are(tokenizer: Tokenizer) -> None:
    """Ids, spans and text are the same on both sides of the length at which another way is taken."""
    for words in (1, SHORT_CHARS // 6 + 1, 2 * SHORT_IDS):
        text = "alpha é " * words
        encoding = tokenizer.library.encode(text)
        (batched,) = tokenizer.library.encode_batch([text], add_special_tokens=True)
        assert encoding.ids == batched.ids
        assert token_spans(encoding).tolist() == [list(span) for span in encoding.offsets]
        decoded = tokenizer.library.decode(encoding.ids, skip_special_tokens=True)
        assert decoded == tokenizer.library._library.decode(encoding.ids)


def test_described_tokens_are_a_sequence(tokenizer: Tokenizer) -> None:
    """One is what it is in a slice, special tokens included."""
    described = describe_tokens(tokenizer, "alpha beta " * 400, adds_special_tokens=True)
    tokens = list(described)
    assert len(described) == len(tokens) > SHORT_IDS
    assert described[:3] == tokens[:3]
    assert described[-1] == tokens[-1]
    assert [token.is_special for token in tokens[:2]] == [True, False]
    assert (tokens[1].text, tokens[1].start, tokens[1].stop) == ("alpha", 0, 5)
    with pytest.raises(IndexError):
        described[len(tokens)]
