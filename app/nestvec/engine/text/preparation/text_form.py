"""TextForm: the form in which a model's texts reach its tokenizer, where the operator wants another than their own.

The Unicode form and what is stripped become the first steps of the tokenizer's own normalizer, so that they run where
texts are tokenized, and every place in a text (a chunk, an offset of a token) stays one of the text as it was sent.

Source: Unicode Standard Annex 15 (NFC, NFKC); general categories Cc and Cf.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.preparation.record_template import RecordTemplate

SPACE_CHARS: Final = 32
# Control and format characters, but white space, the joiners that spell words in Persian, Indic scripts and emoji, and
# signs that are seen (Arabic's number sign and its like).
CONTROL: Final = (
    r"[\p{Cc}\p{Cf}&&[^\t-\r\x{1c}-\x{1f}\x{85}\x{200c}\x{200d}"
    r"\x{600}-\x{605}\x{6dd}\x{70f}\x{890}\x{891}\x{8e2}\x{110bd}\x{110cd}]]"
)


class UnicodeForm(StrEnum):
    """A Unicode normalization form."""

    NFC = "nfc"  # canonical: one spelling of "é"
    NFKC = "nfkc"  # compatibility: also "fi" for its ligature, "1" for a circled one


class Stripped(StrEnum):
    """What is taken out of texts."""

    CONTROL = "control"  # control characters and invisible format characters


@dataclass(frozen=True, slots=True)
class TextForm:
    """What is made of a model's texts before its tokenizer's own rules; nothing by default.

    Attributes:
        unicode: The Unicode form that texts are brought into.
        strip: What is taken out of them, before that.
        template: How records are written as texts; None where they are refused.
    """

    unicode: UnicodeForm | None = None
    strip: Stripped | None = None
    template: RecordTemplate | None = None

    @property
    def changes_texts(self) -> bool:
        """Whether a plain text may be tokenized otherwise than without it."""
        return self.unicode is not None or self.strip is not None

    def apply(self, library: LibraryTokenizer) -> None:
        """Put the form's steps before those of a tokenizer's normalizer."""
        if not self.changes_texts:
            return
        steps: list[normalizers.Normalizer] = []
        if self.strip is Stripped.CONTROL:
            steps.append(normalizers.Replace(Regex(CONTROL), ""))
        if self.unicode is not None:
            form = normalizers.NFC if self.unicode is UnicodeForm.NFC else normalizers.NFKC
            steps.append(form())
        if library.normalizer is not None:
            steps.append(library.normalizer)
        library.normalizer = normalizers.Sequence(steps)

    def space_of(self, space: str) -> str:
        """Return the fingerprint of a model's space with texts in this form; the model's own where nothing is on.

        The template counts, too: an index of records written in one way must not go on in another.
        """
        if self == PLAIN_TEXTS:
            return space
        template = self.template.source if self.template is not None else ""
        form = f"{space} text {self.unicode or ''} {self.strip or ''} {template}"
        return sha256(form.encode()).hexdigest()[:SPACE_CHARS]


PLAIN_TEXTS: Final = TextForm()
