"""Weights of terms for models without a head for them: BM25 over counts of a corpus, with no run of the model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.sparse import SparseOutput
from nestvec.engine.results import RawVectors
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import ROLE_PROMPTS, encode_inputs, is_query_call
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.term_table import TermTable


class LexicalOutput(SparseOutput):
    """Gives a row (id, weight) for each term, ids rising; texts are documents where a call does not call them queries.

    Args:
        table: Counts of a corpus, by the model's own ids.
    """

    def __init__(self, table: TermTable) -> None:
        self.table = table

    def with_side(self, call: EmbedCall, spec: ModelSpec) -> EmbedCall:
        """Return a call whose prompt's name tells its side, where the model has no prompt of that name."""
        if call.prompt_name is None or call.prompt_name in spec.prompts:
            return call
        for role in ("query", "passage"):
            if call.prompt_name in ROLE_PROMPTS[role]:
                return replace(call, prompt_name=None, prompt_role=role)
        return call

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize the texts alone: prompts, instructions and second readings are the model's, not of a text."""
        alone = replace(options, prompt="", adds_special_tokens=False, allows_nothing=True)
        call = replace(call, prompt=None, instruction=None, examples=())
        return encode_inputs(tokenizer, replace(spec, echo=None), call, alone)

    @override
    def look_up(
        self, call: EmbedCall, encoded: Sequence[Encoded], spec: ModelSpec, pooler: Pooler
    ) -> RawVectors:
        """Weigh the terms of each text by counts alone."""
        table = self.table
        weigh = table.query_weights if is_query_call(call) else table.document_weights
        rows = [weigh(value.ids) for value in encoded]
        return RawVectors(np.concatenate(rows), tuple(map(len, rows)), 0.0, 0.0)
