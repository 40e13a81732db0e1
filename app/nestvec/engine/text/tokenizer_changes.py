"""What makes a tokenizer.json the tokenizer that transformers would build of a folder: values, and applying them."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from tokenizers import AddedToken, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS, TextForm
from nestvec.engine.text.truncation import TextPadding

# Flags of an added token, as tokenizer.json spells them.
TOKEN_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class TokenizerChanges:
    """Parts that take the place of a tokenizer.json's own; None leaves one as it is.

    Attributes:
        normalizer: Its normalizer, as tokenizer.json writes one.
        pre_tokenizer: Its pre-tokenizer, likewise.
        post_processor: Its post-processor, likewise: the special tokens around a text and a pair.
        added_tokens: Tokens that are found in a text before anything else, with `content` and `TOKEN_FLAGS`; one that
            the vocabulary has keeps its id, any other gets the next one.
        splits_special_tokens: Whether special tokens that a text spells are tokenized as any other text.
        subwords: What stands for words that the vocabulary lacks, as `SubwordSettings` are written; None for the
            unknown token.
        ends_at_end_token: Whether a text ends with the first token of those that stand for its end, though it may spell
            more of them: where that one is pooled, and sees nothing behind it.
        padding: How texts are padded, by tokens that are read; None where they are not.
        form: The form that the operator has texts brought into before all of that; no part of the folder.
    """

    normalizer: Mapping[str, Any] | None = None
    pre_tokenizer: Mapping[str, Any] | None = None
    post_processor: Mapping[str, Any] | None = None
    added_tokens: tuple[Mapping[str, Any], ...] = ()
    splits_special_tokens: bool = False
    subwords: Mapping[str, Any] | None = None
    ends_at_end_token: bool = False
    padding: TextPadding | None = None
    form: TextForm = PLAIN_TEXTS

    def summary(self) -> dict[str, Any]:
        """Return what the folder changes, for fingerprints: empty where nothing is."""
        fields = {
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor,
            "added_tokens": list(self.added_tokens),
            "splits_special_tokens": self.splits_special_tokens,
            "subwords": self.subwords,
            "ends_at_end_token": self.ends_at_end_token,
            "padding": None if self.padding is None else astuple(self.padding),
        }
        return {name: value for name, value in fields.items() if value}

    def apply(self, library: LibraryTokenizer) -> None:
        """Change a tokenizer that was just read.

        Raises:
            Exception: The library takes a part for invalid.
        """
        if self.normalizer is not None:
            library.normalizer = _set_state(normalizers.Sequence([]), self.normalizer)
        if self.pre_tokenizer is not None:
            library.pre_tokenizer = _set_state(pre_tokenizers.Sequence([]), self.pre_tokenizer)
        if self.post_processor is not None:
            library.post_processor = _set_state(processors.Sequence([]), self.post_processor)
        if self.added_tokens:
            library.add_tokens(
                [
                    AddedToken(token["content"], **{flag: token[flag] for flag in TOKEN_FLAGS})
                    for token in self.added_tokens
                ]
            )
        if self.splits_special_tokens:
            library.encode_special_tokens = True
        self.form.apply(library)


def _set_state(part: Any, state: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the library's parts share no class
    """Give a part of the library another content; the library has no constructor from JSON."""
    part.__setstate__(json.dumps(state).encode())
    return part


NO_CHANGES: Final = TokenizerChanges()
