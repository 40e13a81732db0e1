"""Inputs of a call to token ids: which prompt stands before them, and texts, ids or documents each in their way."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final, cast

from nestvec.engine.models.served_model import ModelSpec, ServedModel
from nestvec.engine.text.documents import encode_chunks, encode_split, encode_windows
from nestvec.engine.text.echo import encode_echo
from nestvec.engine.text.encoded import Encoded, Fit
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, OutputKind, Pair, Truncation
from nestvec.errors import InputError

# Prompt names that serve a role, in the order tried (api-contract 4.7).
ROLE_PROMPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("query", "s2p_query", "retrieval.query", "search_query"),
    "passage": ("document", "passage", "retrieval.passage", "search_document"),
    "classify": ("classification", "Classification"),
    "cluster": ("clustering", "separation", "Clustering"),
    "similarity": ("STS", "text-matching", "sts"),
}


def resolve_prompt(call: EmbedCall, spec: ModelSpec) -> tuple[str | None, str]:
    """Which prompt a call means: (its name, its text).

    Raises:
        InputError: The model has no prompt of that name.
    """
    if call.prompt is not None:
        return "", call.prompt
    if call.instruction is not None or call.examples:
        return "instruction", _instruction(call, spec)
    if call.prompt_name is not None:
        if call.prompt_name not in spec.prompts:
            named = ", ".join(sorted(spec.prompts)) or "none"
            raise InputError(
                f"this model has no prompt of that name; it has: {named}", param="prompt_name"
            )
        return call.prompt_name, spec.prompts[call.prompt_name]
    name = spec.default_prompt
    if call.prompt_role is not None:
        known = ROLE_PROMPTS.get(call.prompt_role, (call.prompt_role,))
        name = next((one for one in known if one in spec.prompts), None)
    return name, spec.prompts[name] if name is not None else ""


def _instruction(call: EmbedCall, spec: ModelSpec) -> str:
    """The model's template, filled.

    Raises:
        InputError: It has none, or none for examples.
    """
    if spec.instruct is None:
        raise InputError(
            "this model has no template for instructions; send 'prompt', or write one in its card",
            param="instruction",
        )
    if call.examples and not spec.instruct.example:
        raise InputError("this model has no template for examples", param="examples")
    return spec.instruct.prefix(call.instruction or "", call.examples)


def tokenize(model: ServedModel, call: EmbedCall, fit: Fit) -> list[Encoded]:
    """Token ids of all inputs, or of all documents."""
    tokenizer = model.tokenizer
    if call.kind is OutputKind.LABELS:
        return _tokenize_for_labels(model, call, fit)
    late = model.spec.late_interaction
    if late is not None and call.kind is OutputKind.TOKENS:
        return _tokenize_for_late_interaction(model, call, fit, late)
    is_text = all(isinstance(given, str) for given in call.inputs)
    echo = model.spec.echo
    if echo is not None and is_text and not call.chunks and not call.splits:
        return encode_echo(tokenizer, cast("Sequence[str]", call.inputs), fit, echo)
    if call.chunks or call.splits:
        encoded = _tokenize_documents(model, call, fit)
    elif is_text:
        encode = encode_windows if fit.truncate is Truncation.WINDOWS else Tokenizer.encode_texts
        encoded = encode(tokenizer, cast("Sequence[str]", call.inputs), fit)
    elif fit.prefix or any(isinstance(given, str) for given in call.inputs):
        return [_tokenize_one(model, given, index, fit) for index, given in enumerate(call.inputs)]
    else:
        return tokenizer.check_ids(cast("Sequence[Sequence[int]]", call.inputs), fit)
    return _without_prompt(encoded, model, fit)


def _tokenize_for_labels(model: ServedModel, call: EmbedCall, fit: Fit) -> list[Encoded]:
    """Texts and pairs; a prompt stands before neither."""
    plain = dataclasses.replace(fit, prefix="")
    return [
        model.tokenizer.encode_pair(given, plain, index)
        if isinstance(given, Pair)
        else _tokenize_one(model, given, index, plain)
        for index, given in enumerate(call.inputs)
    ]


def _tokenize_for_late_interaction(
    model: ServedModel, call: EmbedCall, fit: Fit, late: LateInteraction
) -> list[Encoded]:
    """Queries or documents, as the call's role says; documents where it says nothing."""
    is_query = asks_for_queries(call)
    own = late.fit(fit, is_query=is_query, most=model.tokenizer.max_tokens)
    plain = dataclasses.replace(call, kind=OutputKind.DENSE)
    return [late.mark(one, is_query=is_query) for one in tokenize(model, plain, own)]


def asks_for_queries(call: EmbedCall) -> bool:
    """Whether a call says that its texts are queries, by role or by the name of a prompt."""
    return call.prompt_role == "query" or call.prompt_name in ROLE_PROMPTS["query"]


def _tokenize_one(
    model: ServedModel, given: str | Sequence[int] | Pair, index: int, fit: Fit
) -> Encoded:
    """One input of several kinds; a prompt is text, so ids become text where there is one (as in TEI)."""
    tokenizer = model.tokenizer
    if isinstance(given, Pair):
        raise InputError("a pair of texts needs a re-ranker", param="input", input_index=index)
    try:
        if not isinstance(given, str) and not fit.prefix:
            return tokenizer.check_ids([given], fit)[0]
        text = given if isinstance(given, str) else tokenizer.decode(given)
        return _without_prompt(tokenizer.encode_texts([text], fit), model, fit)[0]
    except InputError as error:
        error.input_index = index
        raise


def _tokenize_documents(model: ServedModel, call: EmbedCall, fit: Fit) -> list[Encoded]:
    """One item a document; errors name the chunk, or the document."""
    texts = cast("Sequence[str]", call.inputs)
    if call.splits:
        documents = enumerate(zip(texts, call.splits, strict=True))
        return [encode_split(model.tokenizer, t, split, fit, n) for n, (t, split) in documents]
    encoded = []
    start = 0
    for count in call.chunks:
        try:
            encoded.append(encode_chunks(model.tokenizer, texts[start : start + count], fit))
        except InputError as error:
            if error.input_index is not None:
                error.input_index += start
            raise
        start += count
    return encoded


def _without_prompt(encoded: list[Encoded], model: ServedModel, fit: Fit) -> list[Encoded]:
    """Inputs whose pooling leaves the prompt out, where the model was trained so."""
    if not fit.prefix or model.spec.pools_prompt:
        return encoded
    skip = model.tokenizer.count_prompt_tokens(fit.prefix)
    return [_skipping(one, skip) for one in encoded]


def _skipping(encoded: Encoded, skip: int) -> Encoded:
    """An input, or each of its windows, without its first tokens in the pooling; one is always kept."""
    windows = encoded.windows
    if windows is not None:
        parts = tuple(_skipping(part, skip) for part in windows.parts)
        windows = dataclasses.replace(windows, parts=parts)
    kept = min(skip, len(encoded.ids) - 1)
    return dataclasses.replace(encoded, skip_tokens=kept, windows=windows)


def input_tokens(encoded: Encoded) -> list[int]:
    """Tokens of the inputs that went into an item: one, a document's chunks as they came, or a document cut here."""
    if encoded.windows is not None and (encoded.chunks or not encoded.spans):
        return [encoded.windows.tokens]
    if encoded.chunks or not encoded.spans:
        return [len(encoded.ids)]
    return [stop - start for start, stop in encoded.spans]
