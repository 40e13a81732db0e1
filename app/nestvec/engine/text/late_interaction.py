"""Late interaction: a vector for each token, with queries and documents marked and masked differently.

Source: ColBERT (arXiv:2004.12832), section 3: markers, queries filled up with [MASK], punctuation left out of
documents; token pooling as in arXiv:2409.14683.
"""

from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """How a late-interaction model wants its queries and documents tokenized.

    The class's name and its fields, in this order, go into the model's space fingerprint through `repr`: they must not
    change.

    Attributes:
        query_marker: Id put behind the first token of a query; None for none.
        document_marker: Id put behind the first token of a document; None for none.
        query_tokens: Length of every query, which is filled up with `mask_id`; 0: queries keep their own length.
        document_tokens: Maximum length of a document; 0: as many tokens as the model takes.
        mask_id: Id that queries are filled up with.
        attends_expansion: Whether the query's own tokens attend to the tokens it is filled up with.
        skip_ids: Ids whose vectors are left out of documents: punctuation.
        skips_first: Whether the first token's vector is left out (BGE-M3).
    """

    query_marker: int | None = None
    document_marker: int | None = None
    query_tokens: int = 0
    document_tokens: int = 0
    mask_id: int = 0
    attends_expansion: bool = False
    skip_ids: tuple[int, ...] = ()
    skips_first: bool = False

    @property
    def takes_queries_unasked(self) -> bool:
        """Whether a text of which a call says nothing is a query; else it is a document."""
        return False

    def longest(self, *, is_query: bool) -> int:
        """Return the maximum length of a query or document; 0: as many tokens as the model takes."""
        return self.query_tokens if is_query else self.document_tokens

    def skipped(self, *, is_query: bool) -> tuple[int, ...]:
        """Return the ids whose vectors are left out of queries or documents."""
        return () if is_query else self.skip_ids

    def limit(
        self, options: TokenizeOptions, *, is_query: bool, model_max_tokens: int
    ) -> TokenizeOptions:
        """Limit a call's options to the length of queries or documents, and leave a token for the marker.

        Args:
            options: The call's options.
            is_query: Whether the texts are queries rather than documents.
            model_max_tokens: Number of tokens that the model takes.
        """
        trained_tokens = self.longest(is_query=is_query) or model_max_tokens
        marker = self.query_marker if is_query else self.document_marker
        max_tokens = min(trained_tokens, options.max_tokens or model_max_tokens)
        return replace(options, max_tokens=max_tokens - (marker is not None))

    def mark(self, encoded: Encoded, *, is_query: bool) -> Encoded:
        """Insert the marker, fill queries up, and say which tokens' vectors are given out."""
        marker = self.query_marker if is_query else self.document_marker
        ids = encoded.ids
        if marker is not None:
            ids = np.concatenate([ids[:1], np.array([marker], ids.dtype), ids[1:]])
        expansion = max(0, self.query_tokens - len(ids)) if is_query else 0
        if expansion:
            ids = np.concatenate([ids, np.full(expansion, self.mask_id, ids.dtype)])
        mask = np.ones(len(ids), bool)
        if skipped := self.skipped(is_query=is_query):
            mask &= ~np.isin(ids, skipped)
        mask[0] &= not (self.skips_first and len(ids) > 1)
        if not mask.any():  # nothing but punctuation
            mask[0] = True
        return replace(
            encoded,
            ids=ids,
            expansion=0 if self.attends_expansion else expansion,
            token_mask=mask,
        )


@dataclass(frozen=True, slots=True)
class RoleLengths(LateInteraction):
    """The same where queries may be longer than what they are filled up to, and may leave tokens out too.

    Its name and its fields go into fingerprints as its base's do.

    Source: `Transformer` and `MultiVectorMask` of sentence-transformers 6.

    Attributes:
        longest_query: Maximum length of a query, at least `query_tokens`; 0: as many tokens as the model takes.
        query_skip_ids: Ids whose vectors are left out of queries.
    """

    longest_query: int = 0
    query_skip_ids: tuple[int, ...] = ()

    @override
    def longest(self, *, is_query: bool) -> int:
        """Return the maximum length of a query or document; 0: as many tokens as the model takes."""
        return self.longest_query if is_query else self.document_tokens

    @override
    def skipped(self, *, is_query: bool) -> tuple[int, ...]:
        """Return the ids whose vectors are left out of queries or documents."""
        return self.query_skip_ids if is_query else self.skip_ids


@dataclass(frozen=True, slots=True)
class SuffixedQueries(LateInteraction):
    """The same of models that compare texts with the patches of pictures: their own processors know texts as queries.

    So a text is a query unless it is said to be a document. As many tokens follow every query, however long it is. Its
    name and its fields go into fingerprints as its base's do.

    Source: ColPali (arXiv:2407.01449); `process_queries` of transformers' processors of its kind.

    Attributes:
        query_suffix: Ids put behind every query.
        tokens_behind: How many tokens of the tokenizer's own stand behind these.
    """

    query_suffix: tuple[int, ...] = ()
    tokens_behind: int = 0

    @property
    @override
    def takes_queries_unasked(self) -> bool:
        """Whether a text of which a call says nothing is a query."""
        return True

    @override
    def limit(
        self, options: TokenizeOptions, *, is_query: bool, model_max_tokens: int
    ) -> TokenizeOptions:
        """Limit a call's options as its base does, and leave room for what follows a query.

        Raises:
            InputError: The call's limit leaves none for the query itself.
        """
        limited = LateInteraction.limit(
            self, options, is_query=is_query, model_max_tokens=model_max_tokens
        )
        added = len(self.query_suffix) if is_query else 0
        left = (limited.max_tokens or 0) - added
        if added and left < 1:
            raise InputError(
                f"'max_tokens' must be at least {added + 1}: {added} tokens of this model's own follow a query",
                param="max_tokens",
            )
        return replace(limited, max_tokens=left)

    @override
    def mark(self, encoded: Encoded, *, is_query: bool) -> Encoded:
        """Put the suffix behind a query, then do as its base does."""
        if is_query and self.query_suffix:
            ids = encoded.ids
            place = len(ids) - self.tokens_behind
            suffix = np.array(self.query_suffix, ids.dtype)
            ids = np.concatenate([ids[:place], suffix, ids[place:]])
            encoded = replace(encoded, ids=ids)
        return LateInteraction.mark(self, encoded, is_query=is_query)
