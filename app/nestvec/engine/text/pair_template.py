"""Pairs of texts inside a model's own template, as re-rankers that answer a question about them read them.

Source: the prompts of Qwen3-Reranker (arXiv:2506.05176) and mxbai-rerank-v2; sentence-transformers 6.2, whose
`Transformer._restore_chat_template_suffix` cuts the document too, so that what stands behind it stays.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

import numpy as np

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import IdArray, Pair, Truncation
from nestvec.errors import InputError

PLACEHOLDER: Final = re.compile(r"\{(instruction|query|document)\}")


class Slot(StrEnum):
    """What a template has a place for."""

    INSTRUCTION = "instruction"
    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """A template of pairs, as texts and places.

    Attributes:
        parts: What the model reads, in order; the document has one place, the query at least one.
        instruction: What stands for the instruction where a call has none.
        instructed: The parts where a call has an instruction, for models that say it otherwise then; empty for `parts`.
    """

    parts: tuple[str | Slot, ...]
    instruction: str = ""
    instructed: tuple[str | Slot, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> Self:
        """Read a card's table: `template`, and perhaps `instruction` and `instructed`.

        Raises:
            ValueError: A key is unknown or no text, or a template lacks a place.
        """
        if not set(table) <= {"template", "instruction", "instructed"} or "template" not in table:
            raise ValueError("takes a template, and may have instruction and instructed")
        if not all(isinstance(text, str) for text in table.values()):
            raise ValueError("takes texts")
        texts = {key: str(text) for key, text in table.items()}
        return cls.parse(texts.pop("template"), **texts)

    @classmethod
    def parse(cls, template: str, *, instruction: str = "", instructed: str = "") -> Self:
        """Read templates with `{instruction}`, `{query}` and `{document}`.

        Raises:
            ValueError: One has no place for the query, or not one for the document; or the second has none for the
                instruction.
        """
        made = cls(_parts(template), instruction, _parts(instructed))
        made.check()
        return made

    def check(self) -> None:
        """Check that a template has all its places.

        Raises:
            ValueError: It has not.
        """
        for parts in (self.parts, self.instructed or self.parts):
            if parts.count(Slot.DOCUMENT) != 1 or Slot.QUERY not in parts:
                raise ValueError("needs {query}, and {document} once")
        if self.instructed and Slot.INSTRUCTION not in self.instructed:
            raise ValueError("needs {instruction} where requests have one")

    @property
    def takes_instruction(self) -> bool:
        """Whether a call may have an instruction."""
        return bool(self.instructed) or Slot.INSTRUCTION in self.parts

    def around(self, query: str, instruction: str | None) -> tuple[str, str]:
        """Return what stands before a document and what stands behind it.

        Args:
            query: The query.
            instruction: The call's instruction; None for none.
        """
        parts = self.instructed if instruction is not None and self.instructed else self.parts
        values = {
            Slot.INSTRUCTION: self.instruction if instruction is None else instruction,
            Slot.QUERY: query,
        }
        place = parts.index(Slot.DOCUMENT)
        return _filled(parts[:place], values), _filled(parts[place + 1 :], values)


def _parts(template: str) -> tuple[str | Slot, ...]:
    """Cut a template at its placeholders; whatever else is in braces is text."""
    pieces = PLACEHOLDER.split(template)
    return tuple(
        Slot(piece) if number % 2 else piece for number, piece in enumerate(pieces) if piece
    )


def _filled(parts: Sequence[str | Slot], values: Mapping[Slot, str]) -> str:
    return "".join(values[part] if isinstance(part, Slot) else part for part in parts)


@dataclass(slots=True)
class TemplatedPairEncoder:
    """Tokenizes the pairs of one call in a model's template; the pairs of one query go through the tokenizer at once.

    Attributes:
        tokenizer: The model's tokenizer.
        template: The model's template; its special tokens are spelt in it, and none are added.
        instruction: The call's instruction; None for the template's own.
        options: What to do beyond the limit.
    """

    tokenizer: Tokenizer
    template: PairTemplate
    instruction: str | None
    options: TokenizeOptions

    def encode(self, pairs: Sequence[Pair], start: int) -> list[Encoded]:
        """Tokenize pairs that have one first text.

        Where one is too long, its document is cut; the query and the template stay whole.

        Args:
            pairs: The pairs, at least one.
            start: Index of the first of them in the call, for errors.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed.
            InputTooLongError: One is too long and truncation is off; names the index.
            InputError: The query leaves no room for a document.
        """
        before, after = self.template.around(pairs[0].first, self.instruction)
        options = replace(self.options, prompt=before, adds_special_tokens=False)
        max_length = self.tokenizer.max_length(options)
        before_ids, after_ids = self._frame(before, after, options, max_length)
        frame = len(before_ids) + len(after_ids)
        most = self.options.max_second_tokens
        is_limited = most is not None and frame + most < max_length
        if most is not None and is_limited:
            options = replace(options, max_tokens=frame + most, truncate=Truncation.END)
        try:
            encoded = self.tokenizer.encode_texts([pair.second + after for pair in pairs], options)
        except InputError as error:
            error.input_index = start + (error.input_index or 0)
            raise
        from_end = options.truncate is Truncation.START
        whole = [_with_frame(each, before_ids, after_ids, from_end=from_end) for each in encoded]
        # A limit of the caller's is no loss that he must be told of.
        return (
            [replace(each, is_truncated=False, dropped_tokens=0) for each in whole]
            if is_limited
            else whole
        )

    def _frame(
        self, before: str, after: str, options: TokenizeOptions, max_length: int
    ) -> tuple[IdArray, IdArray]:
        """Tokenize what stands around the documents.

        Raises:
            InputError: It leaves no room for a document's token.
        """
        unlimited = replace(options, prompt="", budget=None)
        try:
            self.tokenizer.check_prompt(replace(options, truncate=Truncation.END))
            before_ids, after_ids = self.tokenizer.encode_plain([before, after], unlimited)
        except InputError as error:
            error.param, error.input_index = "query", None
            raise
        taken = len(before_ids) + len(after_ids)
        if taken >= max_length:
            raise InputError(
                f"the query and the model's template take {taken} tokens, of {max_length}: no document fits in",
                param="query",
            )
        return before_ids, after_ids


def _with_frame(
    encoded: Encoded, before_ids: IdArray, after_ids: IdArray, *, from_end: bool
) -> Encoded:
    """Return a pair that was cut with all that stands around its document; any other as it is.

    Args:
        encoded: The whole, or its first or last tokens.
        before_ids: Tokens of what stands before the document.
        after_ids: Tokens of what stands behind it.
        from_end: Whether it has its last tokens.
    """
    if not encoded.is_truncated:
        return encoded
    if from_end:
        parts = before_ids, encoded.ids[len(before_ids) :]
    else:
        parts = encoded.ids[: len(encoded.ids) - len(after_ids)], after_ids
    return replace(encoded, ids=np.concatenate(parts))
