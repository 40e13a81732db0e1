"""Texts compared token by token, each token with its nearest on the other side: BERTScore, and late interaction.

BERTScore (arXiv:1904.09675): precision is the mean over the candidate's tokens, recall over the reference's, of the
greatest cosine with a token of the other; F1 is their harmonic mean. Special tokens are left out, and no text has a
prompt. MaxSim (arXiv:2004.12832): the sum over the query's tokens, as the model gives them.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.json_parts import compute
from nestvec.api.requests.pictures.sides import SideInputs, has_pictures
from nestvec.api.requests.vector_json import values_json
from nestvec.api.scoring.vector_comparison import ComparisonOptions, comparison_response
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import EmbedCall, Float64Array, FloatArray, OutputKind, Truncation
from nestvec.engine.vectors.token_vectors import nearest_tokens
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

COSINE: Final = "cosine"
BERTSCORE: Final = "bertscore"
MAXSIM: Final = "maxsim"
METRICS: Final = (COSINE, BERTSCORE, MAXSIM)
# Multiplications of all cosines of tokens: below a second on one core.
MAX_PRODUCTS: Final = 2**33


async def token_similarity(
    api_request: ApiRequest,
    options: ComparisonOptions,
    metric: str,
    left: SideInputs,
    right: SideInputs,
    *,
    is_pairs: bool,
) -> Response:
    """Answer with the scores of each pair, or of each text on the left with each on the right.

    Args:
        api_request: Whom they are for.
        options: How the vectors are made.
        metric: BERTSCORE or MAXSIM.
        left: Candidates, or queries.
        right: References, or documents.
        is_pairs: Whether they are compared pair by pair.

    Raises:
        InputError: An option goes with vectors of whole texts only.
        UnsupportedError: The model has no token vectors, or others than the metric compares.
        RequestTooLargeError: The texts have too many tokens to compare.
    """
    model = await api_request.acquire_model()
    _check(options, metric, model)
    if has_pictures(left, right) and not model.spec.reads_pictures_as_tokens:
        raise UnsupportedError(
            f"a picture of {model.spec.name} has one vector, and no tokens to compare: use '{COSINE}'",
            param="metric",
        )
    sources = ("pairs", "pairs") if is_pairs else ("left", "right")
    results = await _embed(api_request, options, metric, (left, right), sources)
    has_special = metric != BERTSCORE
    lefts = _tokens(results[0], model, has_special=has_special)
    rights = _tokens(results[-1], model, has_special=has_special)
    width = results[0].vectors.shape[1]
    products = width * _cells(lefts, rights, is_pairs=is_pairs)
    if products > MAX_PRODUCTS:
        raise RequestTooLargeError(
            f"'{metric}' compares each two tokens of two texts: {products // width} pairs of tokens here, max "
            f"{MAX_PRODUCTS // width} per request with this model; send fewer or shorter texts",
            param="metric",
        )
    work = partial(_scores, lefts, rights, metric, is_pairs=is_pairs)
    scores = await compute(work, size=products)
    answer = {
        "object": "similarity",
        "model": api_request.model_name() or results[0].model,
        "metric": metric,
        **dict.fromkeys(scores),
        "dimensions": width,
        "output_dtype": options.dtype.value,
    }
    encoded = {name: await values_json(values) for name, values in scores.items()}
    return await comparison_response(answer, encoded, results, results[0])


def _check(options: ComparisonOptions, metric: str, model: ServedModel) -> None:
    """Refuse what does not go with a metric of tokens.

    Raises:
        InputError: An option goes with vectors of whole texts only.
        UnsupportedError: The model's token vectors are others than the metric compares.
    """
    if options.dtype is not OutputDtype.FLOAT32 or options.layers or options.map_id is not None:
        raise InputError(
            f"'{metric}' compares float vectors of tokens, of all layers, without a map",
            param="metric",
        )
    if metric == BERTSCORE and model.spec.late_interaction is not None:
        raise UnsupportedError(
            f"'{BERTSCORE}' compares plain token states, and this model's vectors are for late interaction: use "
            f"'{MAXSIM}'",
            param="metric",
        )


async def _embed(
    api_request: ApiRequest,
    options: ComparisonOptions,
    metric: str,
    sides: tuple[SideInputs, SideInputs],
    sources: tuple[str, str],
) -> list[EmbedResult]:
    """Return the token vectors of both sides, or of one that is compared with itself in one role."""
    roles = (None, None) if metric == BERTSCORE else ("query", "passage")
    results: list[EmbedResult] = []
    for texts, role, source in zip(sides, roles, sources, strict=True):
        if results and sides[0] is sides[1] and role is None:
            break
        call = EmbedCall(
            texts,
            model=api_request.model_name(),
            dimensions=options.dimensions,
            normalize=True,
            truncate=options.truncate,
            prompt="" if role is None else None,
            prompt_role=role,
            kind=OutputKind.TOKENS,
        )
        results.append(await embed(api_request, call, source=source))
    return results


def _tokens(result: EmbedResult, model: ServedModel, *, has_special: bool) -> list[FloatArray]:
    """The token vectors of each text, (n, D), with or without those of the special tokens around it."""
    rows = result.by_input(result.vectors)
    if has_special:
        return rows
    frame = model.tokenizer.special_token_frame(TokenizeOptions(Truncation.ERROR))
    before, behind = map(len, frame)
    return [part[before : len(part) - behind] for part in rows]


def _cells(lefts: Sequence[FloatArray], rights: Sequence[FloatArray], *, is_pairs: bool) -> int:
    """How many cosines of tokens there are."""
    if is_pairs:
        return sum(len(a) * len(b) for a, b in zip(lefts, rights, strict=True))
    return sum(map(len, lefts)) * sum(map(len, rights))


def _scores(
    lefts: Sequence[FloatArray], rights: Sequence[FloatArray], metric: str, *, is_pairs: bool
) -> dict[str, Float64Array]:
    """The values of each pair, (N,), or of each text with each, (N, M), by the answer's field."""
    if is_pairs:
        others = [(part, np.array([len(part)], np.int64)) for part in rights]
    else:
        counts = np.array([len(part) for part in rights], np.int64)
        others = [(np.concatenate(rights), counts)]
    near = [nearest_tokens(part, *other) for part, other in zip(lefts, itertools.cycle(others))]
    of_left, of_right = (np.stack([getattr(n, side) for n in near]) for side in ("left", "right"))
    if is_pairs:
        of_left, of_right = of_left[:, 0], of_right[:, 0]
    if metric == MAXSIM:
        return {"similarities": of_left}
    lengths = np.array([len(part) for part in lefts])
    other_lengths = np.array([len(part) for part in rights])
    lengths = lengths if is_pairs else lengths[:, None]
    precision = of_left / np.maximum(lengths, 1)
    recall = of_right / np.maximum(other_lengths, 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total != 0)
    return {"similarities": f1, "precision": precision, "recall": recall}
