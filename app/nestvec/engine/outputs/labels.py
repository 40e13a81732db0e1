"""A score for each label of a text, or of a pair of texts: classifiers and re-rankers (cross-encoders)."""

import dataclasses

from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.dense import DenseOutput
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_input
from nestvec.engine.types import EmbedCall, Pair


class LabelsOutput(DenseOutput):
    """Pools an item as a vector is pooled; the head makes the labels' scores, which are given out as they are."""

    needed_model = "a re-ranker or classifier (cross-encoder)"
    is_text_vector = False
    has_dimensions = False

    @override
    def model_words(self, spec: ModelSpec) -> str:
        """Return which of the two kinds of cross-encoder the model is."""
        return "a re-ranker" if spec.is_reranker else "a classifier"

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize texts and pairs; a prompt stands before neither."""
        plain = dataclasses.replace(options, prompt="")
        single = dataclasses.replace(plain, budget=None)
        pairs = tokenizer.pair_encoder(plain)
        encoded = []
        for index, value in enumerate(call.inputs):
            if isinstance(value, Pair):
                encoded.append(pairs.encode(value, index))
            else:
                plain.check_going_on()
                encoded.append(encode_input(tokenizer, spec, value, index, single))
                plain.note_tokens(len(encoded[-1].ids))
        return encoded
