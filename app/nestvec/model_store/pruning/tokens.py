"""Which tokens a smaller vocabulary needs, so that texts of its tokens are tokenized as before.

- WordPiece takes the longest token that fits at each place: one that is kept stays the longest.
- Unigram takes the path of the greatest score: one of kept tokens stays the greatest. Its score for an unknown
  character hangs on the least score of all tokens, which is therefore kept.
- BPE merges in the order of its rules. All rules that make a kept token are kept, with the tokens that they join, and
  so on down to characters: no other rule is ever used in a text of kept tokens.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.model_store.pruning.scripts import byte_characters, letter_scripts, text_of_bytes

WORDPIECE: Final = "WordPiece"
WORDLEVEL: Final = "WordLevel"
UNIGRAM: Final = "Unigram"
BPE: Final = "BPE"
BLANK_MARK: Final = "\u2581"
FALLBACK_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class TokenizerModel:
    """The model of a tokenizer.json.

    Attributes:
        kind: Its type.
        content: What the file says of it.
        ids: Its tokens' ids.
        is_byte_level: Whether tokens are spelled in the characters that stand for bytes.
    """

    kind: str
    content: Mapping[str, Any]
    ids: Mapping[str, int]
    is_byte_level: bool

    @classmethod
    def read(cls, tokenizer: Mapping[str, Any]) -> "TokenizerModel":
        """Read the content of a tokenizer.json that the library has opened.

        Raises:
            FormatError: Its model is of another kind.
        """
        content = tokenizer["model"]
        vocabulary = content["vocab"]
        # Files of before types were written have them told by their fields.
        is_unigram = isinstance(vocabulary, list)
        guessed = UNIGRAM if is_unigram else BPE if "merges" in content else WORDPIECE
        kind = content.get("type") or guessed
        if kind not in (WORDPIECE, WORDLEVEL, UNIGRAM, BPE):
            raise FormatError(f"tokenizer.json: a model of type '{kind}' cannot be pruned")
        ids = (
            {piece: number for number, (piece, _) in reversed(list(enumerate(vocabulary)))}
            if is_unigram
            else dict(vocabulary)
        )
        parts = (tokenizer.get("pre_tokenizer"), tokenizer.get("decoder"))
        is_byte_level = kind == BPE and any(_has_type(part, "ByteLevel") for part in parts)
        return cls(kind, content, ids, is_byte_level)

    def spelled(self, token: str) -> str | None:
        """Return the text that a token stands for, without marks of its place; None for a part of a character."""
        if self.is_byte_level:
            return text_of_bytes(token)
        if self.kind == WORDPIECE:
            return token.removeprefix(str(self.content.get("continuing_subword_prefix", "##")))
        return token.removeprefix(BLANK_MARK)

    def needed(self, used: Iterable[str], scripts: frozenset[str]) -> set[str]:
        """Return the tokens that a smaller vocabulary has.

        Args:
            used: Tokens that must be in it.
            scripts: Whose single letters are kept, besides ASCII's.
        """
        kept = {token for token in used if token in self.ids}
        kept |= {token for token in self.ids if self._is_basic(token, scripts)}
        kept |= set(self._required())
        return self._with_parts(kept) if self.kind == BPE else kept

    def _is_basic(self, token: str, scripts: frozenset[str]) -> bool:
        """Whether a token is kept whatever a corpus has: bytes, and single characters that a text may well have."""
        if self.is_byte_level:
            return len(token) == 1 and token in byte_characters()
        if FALLBACK_BYTE.fullmatch(token):
            return True
        text = self.spelled(token)
        if text is None or len(text) != 1 or self.kind == WORDLEVEL:
            return token == BLANK_MARK
        return text.isascii() or letter_scripts(text) <= scripts

    def _required(self) -> Iterable[str]:
        """Tokens that the model itself names, and the least likely one of Unigram."""
        if self.kind == UNIGRAM:
            pieces: Sequence[tuple[str, float]] = self.content["vocab"]
            unknown = self.content.get("unk_id")
            if isinstance(unknown, int):
                yield pieces[unknown][0]
            yield min(pieces, key=lambda piece: piece[1])[0]
            return
        unknown_token = self.content.get("unk_token")
        if isinstance(unknown_token, str) and unknown_token in self.ids:
            yield unknown_token

    def merges(self) -> list[tuple[str, str]]:
        """Return BPE's rules in their order."""
        return [
            (rule.split(" ", 1)[0], rule.split(" ", 1)[1]) if isinstance(rule, str) else tuple(rule)
            for rule in self.content["merges"]
        ]

    def merged(self, first: str, second: str) -> str:
        """Return the token that a rule makes of two."""
        prefix = self.content.get("continuing_subword_prefix") or ""
        return first + second.removeprefix(prefix)

    def _with_parts(self, kept: set[str]) -> set[str]:
        """Add what rules that make kept tokens join, and so on down."""
        makers: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for first, second in self.merges():
            makers[self.merged(first, second)].append((first, second))
        found, open_tokens = set(kept), list(kept)
        while open_tokens:
            for parts in makers[open_tokens.pop()]:
                new = set(parts) - found
                found |= new
                open_tokens += new
        return found & set(self.ids)

    def pruned(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        """Return the model of the tokens whose ids are kept, in the order of their new ids.

        Args:
            new_ids: New ids by old ones.
        """
        content = dict(self.content)
        if self.kind == UNIGRAM:
            pieces = content["vocab"]
            order = [old for old in sorted(new_ids) if old < len(pieces)]
            content["vocab"] = [pieces[old] for old in order]
            if isinstance(content.get("unk_id"), int):
                content["unk_id"] = new_ids[content["unk_id"]]
            return content
        kept = {token: new_ids[old] for token, old in self.ids.items() if old in new_ids}
        content["vocab"] = dict(sorted(kept.items(), key=lambda item: item[1]))
        if self.kind == BPE:
            content["merges"] = [
                rule
                for rule, (first, second) in zip(content["merges"], self.merges(), strict=True)
                if first in kept and second in kept and self.merged(first, second) in kept
            ]
        return content


def _has_type(part: object, name: str) -> bool:
    """Whether a part of a tokenizer, or one in it, is of a type."""
    if isinstance(part, Mapping):
        return part.get("type") == name or any(_has_type(value, name) for value in part.values())
    return isinstance(part, list) and any(_has_type(value, name) for value in part)
