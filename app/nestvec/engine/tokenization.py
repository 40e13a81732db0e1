"""Inputs of a call to token ids: which prompt stands before them; texts, ids and documents each in their own way."""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.documents import encode_chunks, encode_split, encode_windows
from nestvec.engine.text.echo import encode_echo
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.token_budget import TokenBudget
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, OutputKind, Pair, Truncation
from nestvec.errors import InputError

# Names under which models publish the prompt for a role, in the order tried: sentence-transformers' own ("query",
# "document"), and those of published models (stella's s2p_query, Jina's retrieval.query, Nomic's search_query, …).
ROLE_PROMPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("query", "s2p_query", "retrieval.query", "search_query"),
    "passage": ("document", "passage", "retrieval.passage", "search_document"),
    "classify": ("classification", "Classification"),
    "cluster": ("clustering", "separation", "Clustering"),
    "similarity": ("STS", "text-matching", "sts"),
}


def resolve_prompt(call: EmbedCall, spec: ModelSpec) -> tuple[str | None, str]:
    """Find the prompt that a call means.

    Returns:
        The prompt's name ("" for a literal one, None for none) and its text.

    Raises:
        InputError: The model has no prompt of that name.
    """
    if call.kind is OutputKind.LABELS and (spec.pair is not None or call.instruction is not None):
        return None, _pair_frame(call, spec)
    if call.prompt is not None:
        return "", spec.framed(call.prompt)
    if call.instruction is not None or call.examples:
        return "instruction", _instruction(call, spec)
    if call.prompt_name is not None:
        if call.prompt_name not in spec.prompts:
            known = ", ".join(sorted(spec.prompts)) or "none"
            raise InputError(
                f"this model has no prompt of that name; it has: {known}", param="prompt_name"
            )
        return call.prompt_name, spec.framed(spec.prompts[call.prompt_name])
    name = spec.default_prompt
    if call.prompt_role is not None:
        candidates = ROLE_PROMPTS.get(call.prompt_role, (call.prompt_role,))
        name = next((candidate for candidate in candidates if candidate in spec.prompts), None)
    return name, spec.framed(spec.prompts[name] if name is not None else "")


def _pair_frame(call: EmbedCall, spec: ModelSpec) -> str:
    """What the model's template of pairs adds to each of them, so that it is counted.

    Raises:
        InputError: The call has an instruction, and the template no place for one.
    """
    if call.instruction is not None and (spec.pair is None or not spec.pair.takes_instruction):
        raise InputError(
            "this re-ranker reads pairs without an instruction; put it into 'query'",
            param="instruction",
        )
    return "".join(spec.pair.around("", call.instruction)) if spec.pair is not None else ""


def _instruction(call: EmbedCall, spec: ModelSpec) -> str:
    """The model's template for instructions, filled in.

    Raises:
        InputError: The model has no template, or none for examples.
    """
    if spec.chat is not None and not call.examples:
        return spec.framed(call.instruction or "")
    if spec.instruct is None:
        raise InputError(
            "this model has no template for instructions and examples; send 'prompt', or write one in its card",
            param=prompt_field(call),
        )
    if call.examples and not spec.instruct.example:
        raise InputError("this model has no template for examples", param="examples")
    return spec.instruct.prefix(call.instruction or "", call.examples)


def is_query_call(call: EmbedCall) -> bool:
    """Whether a call says that its texts are queries, by role or by the name of a prompt."""
    return call.prompt_role == "query" or call.prompt_name in ROLE_PROMPTS["query"]


def check_token_limit(max_tokens: int | None, tokenizer: Tokenizer) -> None:
    """Refuse a limit on tokens beyond the model's own, as vLLM does.

    Raises:
        InputError: The limit is more tokens than the model takes.
    """
    if max_tokens is not None and max_tokens > tokenizer.max_tokens:
        raise InputError(
            f"'max_tokens' ({max_tokens}) is greater than the model's maximum context length "
            f"({tokenizer.max_tokens} tokens); select a smaller one, or -1 for all of it",
            param="max_tokens",
        )


def encode_inputs(
    tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
) -> list[Encoded]:
    """Tokenize all inputs of a call, or all its documents: one `Encoded` for each.

    Raises:
        InputError: An input cannot be tokenized or is too long, and names its index; or the prompt leaves no room.
    """
    gives_way = bool(call.examples) and call.prompt is None
    gives_way = gives_way and options.truncate is not Truncation.ERROR
    if options.prompt:
        least = options
        if gives_way:
            without = _instruction(dataclasses.replace(call, examples=()), spec)
            least = dataclasses.replace(options, prompt=without)
        _check_prompt(tokenizer, call, least)
    if not gives_way:
        return _encode_with_prompt(tokenizer, spec, call, options)
    if call.chunks or call.splits or options.truncate is Truncation.WINDOWS:
        return [
            _beside_examples(tokenizer, spec, part, options, index)
            for index, part in _parts_of(call)
        ]
    encoded = _encode_with_prompt(tokenizer, spec, call, options)
    return [
        _with_fewer_examples(value, tokenizer, spec, call, options, index)
        if value.is_truncated
        else value
        for index, value in enumerate(encoded)
    ]


def _check_prompt(tokenizer: Tokenizer, call: EmbedCall, options: TokenizeOptions) -> None:
    """Refuse a prompt that leaves no room for a text, before it is put before all of them.

    Raises:
        InputError: It leaves none; names the field that it came from.
    """
    try:
        tokenizer.check_prompt(options)
    except InputError as error:
        error.param = prompt_field(call)
        raise


def prompt_field(call: EmbedCall) -> str:
    """Return the field of a call that its prompt came from."""
    if call.prompt is not None:
        return "prompt"
    if call.examples:
        return "examples"
    return "instruction" if call.instruction is not None else "prompt_name"


def _with_fewer_examples(
    whole: Encoded,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    call: EmbedCall,
    options: TokenizeOptions,
    index: int,
) -> Encoded:
    """Return an input without its first worked examples: as few of them are left out as make room for all of the rest.

    Args:
        whole: The input with all examples, which was cut.
        tokenizer: The model's tokenizer.
        spec: The model, which has a template for examples.
        call: The call.
        options: How the call's inputs are tokenized, with all examples in the prompt.
        index: Index of the input.
    """

    def without(first: int) -> Encoded:
        fewer = dataclasses.replace(
            call, inputs=[call.inputs[index]], examples=call.examples[first:]
        )
        prompt = _instruction(fewer, spec)
        # Its tokens are counted already.
        replaced = dataclasses.replace(options, prompt=prompt, budget=None)
        options.check_going_on()
        return _encode_with_prompt(tokenizer, spec, fewer, replaced)[0]

    # Without the first `too_few` the input is too long; without any it is as short as can be.
    too_few, enough = 0, len(call.examples)
    best = without(enough)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        attempt = without(middle)
        if attempt.is_truncated:
            too_few = middle
        else:
            enough, best = middle, attempt
    return dataclasses.replace(
        best,
        is_truncated=True,
        dropped_tokens=len(whole.ids) + whole.dropped_tokens - len(best.ids),
        drops_more=whole.drops_more,
    )


def _parts_of(call: EmbedCall) -> Iterator[tuple[int, EmbedCall]]:
    """Iterate over a call's inputs or documents: the index of its first input, and it as a call of its own."""
    if call.splits:
        for index, (text, split) in enumerate(zip(call.inputs, call.splits, strict=True)):
            yield index, dataclasses.replace(call, inputs=[text], splits=(split,))
        return
    start = 0
    for count in call.chunks or (1,) * len(call.inputs):
        inputs, chunks = call.inputs[start : start + count], (count,) if call.chunks else ()
        yield start, dataclasses.replace(call, inputs=inputs, chunks=chunks)
        start += count


def _beside_examples(
    tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions, index: int
) -> Encoded:
    """Encode a document, or a text that may have windows, with as many of the last worked examples as leave it room.

    Nothing of it is cut off where leaving out examples helps. In windows, before each of which the examples stand, they
    may take half of one where the whole text does not fit beside them.

    Raises:
        InputError: As of the call; names the input's index in it.
    """

    def prompt(first: int) -> str:
        return _instruction(dataclasses.replace(call, examples=call.examples[first:]), spec)

    def encode(first: int, budget: TokenBudget | None) -> Encoded:
        options.check_going_on()
        with_prompt = dataclasses.replace(options, prompt=prompt(first), budget=budget)
        return _encode_with_prompt(tokenizer, spec, call, with_prompt)[0]

    def leaves_room(first: int) -> bool:
        prompt_tokens = tokenizer.count_prompt_tokens(prompt(first))
        is_half = options.truncate is Truncation.WINDOWS and 2 * prompt_tokens <= max_length
        return is_half or own_tokens + prompt_tokens <= max_length

    every, max_length = len(call.examples), tokenizer.max_length(options)
    try:
        alone = encode(every, None)
        total = len(alone.ids) + alone.dropped_tokens
        least = tokenizer.count_prompt_tokens(prompt(every))
        own_tokens = total - least
        first = bisect.bisect_left(range(every), x=True, key=leaves_room)
        best = encode(first, options.budget)
        if best.is_truncated and not alone.is_truncated:
            # A token more than counted, where the prompt and the text meet.
            best, first = alone, every
    except InputError as error:
        if error.input_index is not None:
            error.input_index += index
        raise
    if not first:
        return best
    lost = tokenizer.count_prompt_tokens(prompt(0)) - tokenizer.count_prompt_tokens(prompt(first))
    return dataclasses.replace(best, is_truncated=True, dropped_tokens=best.dropped_tokens + lost)


def _encode_with_prompt(
    tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
) -> list[Encoded]:
    """Tokenize all inputs of a call, or all its documents, with one prompt before each.

    Raises:
        InputError: An input cannot be tokenized or is too long; names its index.
    """
    is_text = all(isinstance(value, str) for value in call.inputs)
    is_documents = bool(call.chunks or call.splits)
    if spec.echo is not None and is_text and not is_documents:
        return encode_echo(tokenizer, cast("Sequence[str]", call.inputs), options, spec.echo)
    if is_documents:
        encoded = _encode_documents(tokenizer, call, options)
    elif is_text:
        is_windows = options.truncate is Truncation.WINDOWS
        encode = encode_windows if is_windows else Tokenizer.encode_texts
        encoded = encode(tokenizer, cast("Sequence[str]", call.inputs), options)
    elif options.prompt or any(isinstance(value, str) for value in call.inputs):
        return encode_mixed(tokenizer, spec, call.texts, options)
    else:
        return tokenizer.encode_ids(cast("Sequence[Sequence[int]]", call.inputs), options)
    return _without_prompt(encoded, tokenizer, spec, options)


def encode_mixed(
    tokenizer: Tokenizer,
    spec: ModelSpec,
    inputs: Sequence[str | Sequence[int] | Pair],
    options: TokenizeOptions,
    first_index: int = 0,
) -> list[Encoded]:
    """Tokenize texts and token ids of one call, one after the other.

    Args:
        tokenizer: The model's tokenizer.
        spec: What the model is.
        inputs: The texts and token ids.
        options: What to do beyond the limit.
        first_index: Index of the first of them in the call, for errors.

    Raises:
        InputError: An input cannot be tokenized or is too long; names its index.
    """
    encoded = []
    single = dataclasses.replace(options, budget=None)
    for index, value in enumerate(inputs, first_index):
        options.check_going_on()
        encoded.append(encode_input(tokenizer, spec, value, index, single))
        options.note_tokens(len(encoded[-1].ids))
    return encoded


def encode_input(
    tokenizer: Tokenizer,
    spec: ModelSpec,
    value: str | Sequence[int] | Pair,
    index: int,
    options: TokenizeOptions,
) -> Encoded:
    """Tokenize one input of a mixed call; a prompt is text, so ids become text where there is one (as in TEI).

    Raises:
        InputError: The input cannot be tokenized or is too long; names its index.
    """
    if isinstance(value, Pair):
        raise InputError("a pair of texts needs a re-ranker", param="input", input_index=index)
    try:
        if not isinstance(value, str) and not options.prompt:
            return tokenizer.encode_ids([value], options)[0]
        text = value if isinstance(value, str) else tokenizer.decode(value)
        encoded = tokenizer.encode_texts([text], options)
        return _without_prompt(encoded, tokenizer, spec, options)[0]
    except InputError as error:
        error.input_index = index
        raise


def _encode_documents(
    tokenizer: Tokenizer, call: EmbedCall, options: TokenizeOptions
) -> list[Encoded]:
    """One `Encoded` for each document; errors name the chunk, or the document."""
    texts = cast("Sequence[str]", call.inputs)
    if call.splits:
        documents = enumerate(zip(texts, call.splits, strict=True))
        return [
            encode_split(tokenizer, text, split, options, number)
            for number, (text, split) in documents
        ]
    encoded = []
    start = 0
    for count in call.chunks:
        try:
            encoded.append(encode_chunks(tokenizer, texts[start : start + count], options))
        except InputError as error:
            if error.input_index is not None:
                error.input_index += start
            raise
        start += count
    return encoded


def _without_prompt(
    encoded: list[Encoded], tokenizer: Tokenizer, spec: ModelSpec, options: TokenizeOptions
) -> list[Encoded]:
    """The inputs with the prompt left out of their pooling, where the model was trained so."""
    if not options.prompt or spec.pools_prompt:
        return encoded
    is_the_models = options.prompt in spec.prompts.values()
    prompt_tokens = tokenizer.count_prompt_tokens(options.prompt, keeps=is_the_models)
    return [_skipping(value, prompt_tokens) for value in encoded]


def _skipping(encoded: Encoded, skip_tokens: int) -> Encoded:
    """An input, or each of its windows, without its first tokens in the pooling; one token always stays."""
    windows = encoded.windows
    if windows is not None:
        parts = tuple(_skipping(part, skip_tokens) for part in windows.parts)
        windows = dataclasses.replace(windows, parts=parts)
    skip_tokens = min(skip_tokens, len(encoded.ids) - 1)
    return dataclasses.replace(encoded, skip_tokens=skip_tokens, windows=windows)


def input_tokens(encoded: Encoded) -> list[int]:
    """Number of tokens of each input of the call that went into `encoded`.

    That is one input, or the chunks of a document that the caller cut; a document that was cut here is one input too.
    """
    if encoded.windows is not None and (encoded.chunks or not encoded.spans):
        return [encoded.windows.tokens]
    if encoded.chunks or not encoded.spans:
        return [len(encoded.ids)]
    return [stop - start for start, stop in encoded.spans]
