"""A score for each label of a text, or of a pair of texts: classifiers and re-rankers (cross-encoders)."""

import dataclasses
import itertools

from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.dense import DenseOutput
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.pair_template import TemplatedPairEncoder
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_mixed
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
        if spec.pair is not None:
            template = TemplatedPairEncoder(tokenizer, spec.pair, call.instruction, plain)
            return _encode_templated(template, spec, call)
        pairs = tokenizer.pair_encoder(plain)
        encoded = []
        for index, value in enumerate(call.texts):
            if isinstance(value, Pair):
                encoded.append(pairs.encode(value, index))
            else:
                encoded += encode_mixed(tokenizer, spec, [value], plain, index)
        return encoded


def _encode_templated(
    template: TemplatedPairEncoder, spec: ModelSpec, call: EmbedCall
) -> list[Encoded]:
    """Tokenize pairs in a model's template, those of one query together; single texts as they are.

    Raises:
        InputError: An input cannot be tokenized or is too long; names its index.
    """
    encoded: list[Encoded] = []
    for first, run in itertools.groupby(call.texts, _first_text):
        values = list(run)
        start = len(encoded)
        if first is not None:
            pairs = [value for value in values if isinstance(value, Pair)]
            encoded += template.encode(pairs, start)
            continue
        encoded += encode_mixed(template.tokenizer, spec, values, template.options, start)
    return encoded


def _first_text(value: object) -> str | None:
    """The first text of a pair; None for what is no pair."""
    return value.first if isinstance(value, Pair) else None
