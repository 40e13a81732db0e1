"""Unicode form and stripped characters: the same tokens for the same text, places of the text as it was sent."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.engine.text.preparation.text_form import (
    PLAIN_TEXTS,
    Stripped,
    TextForm,
    UnicodeForm,
)
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.engine.types import Truncation
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers

OPTIONS = TokenizeOptions(Truncation.END)
NFC = TextForm(UnicodeForm.NFC)
NFKC = TextForm(UnicodeForm.NFKC, Stripped.CONTROL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that normalizes nothing, as many byte-level ones: each byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = LibraryTokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    file = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    library.save(str(file))
    return file


def opened(path: Path, form: TextForm) -> Tokenizer:
    """Open it with texts in a form."""
    changes = TokenizerChanges(form=form)
    return Tokenizer(path, max_tokens=4096, vocabulary_size=256, changes=changes)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text."""
    found: list[int] = tokenizer.encode_plain([text], OPTIONS)[0].tolist()
    return found


def test_composed_and_decomposed_are_one(path: Path) -> None:
    """NFC makes one text of both spellings, where the tokenizer takes them for two."""
    plain, nfc = opened(path, PLAIN_TEXTS), opened(path, NFC)
    composed, decomposed = "Zürich café", unicodedata.normalize("NFD", "Zürich café")
    assert ids(plain, composed) != ids(plain, decomposed)
    assert ids(nfc, composed) == ids(nfc, decomposed) == ids(plain, composed)


def test_controls_are_taken_out(path: Path) -> None:
    """Controls and invisible characters go, white space and the joiners of words stay; compatible signs are one."""
    sent = "\ufb01ne\u200b\x07 o\u00adk\ufeff \u2460\ta\x0bb \u0645\u200c\u06cc \u202ex\U000e0041"
    kept = "fine ok 1\ta\x0bb \u0645\u200c\u06cc x"
    assert ids(opened(path, NFKC), sent) == ids(opened(path, PLAIN_TEXTS), kept)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=200))
def test_as_python_would(path: Path, text: str) -> None:
    """NFC and NFKC are Unicode's: the tokens are those of the text that the standard library makes of it."""
    plain = opened(path, PLAIN_TEXTS)
    known = "".join(char if unicodedata.category(char) != "Cn" else "x" for char in text)
    for form in UnicodeForm:
        same = unicodedata.normalize("NFC" if form is UnicodeForm.NFC else "NFKC", known)
        assert ids(opened(path, TextForm(form)), known) == ids(plain, same)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(min_size=1, max_size=100))
def test_places_are_those_of_the_text_sent(path: Path, text: str) -> None:
    """Tokens start at rising places inside the text as it was sent, whatever was taken out or grew."""
    _, starts = opened(path, NFKC).encode_with_starts(text, OPTIONS)
    assert (np.diff(starts) >= 0).all()
    assert not len(starts) or (starts[0] >= 0 and starts[-1] < len(text))


def test_growth_is_counted_in_tokens(path: Path) -> None:
    """A character that NFKC makes eighteen of counts as what it becomes."""
    text = "\ufdfa" * 1000
    (encoded,) = opened(path, NFKC).encode_texts([text], OPTIONS)
    assert encoded.is_truncated
    assert len(encoded.ids) == 4096


def test_each_form_is_a_space() -> None:
    """Nothing on is the model's own space; each part that is on makes another, the template too."""
    forms = [
        NFC,
        NFKC,
        TextForm(UnicodeForm.NFKC),
        TextForm(strip=Stripped.CONTROL),
        TextForm(template=RecordTemplate("{a}")),
        TextForm(template=RecordTemplate("{b}")),
    ]
    spaces = {form.space_of("0123") for form in forms}
    assert PLAIN_TEXTS.space_of("0123") == "0123"
    assert len(spaces | {"0123"}) == len(forms) + 1
    assert all(len(space) == 32 for space in spaces)
