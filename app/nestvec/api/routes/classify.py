"""`POST /v1/classify`: labels of texts and pictures, by anchors in the request, by a fitted map, or by a classifier.

Body and answer are Jina's, with fields of ours beside them: source: Jina's documentation of its classifier API. vLLM's
`/classify` and TEI's `/predict` are those of classifiers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from nestvec.api.dialect_table import JINA
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed, reserve_answer
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import compute, join_parts, listed, object_parts
from nestvec.api.requests.label_options import LabelOptions, parse_label_options
from nestvec.api.requests.pictures.parts import read_items
from nestvec.api.requests.pictures.reading import ReadInputs, read_inputs
from nestvec.api.schemas.classify import LABELS_DOC
from nestvec.api.scoring.labelling import (
    LabelledRows,
    LabelProbabilities,
    classifications_json,
    label_probabilities,
    mixed_probabilities,
)
from nestvec.engine.front.labelling import fill_template, labelling_role
from nestvec.engine.front.vector_plan import find_map
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, OutputKind, TextInput
from nestvec.engine.vectors.label_calibration import LabelCalibration
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import InputError, RequestTooLargeError

router = APIRouter(route_class=RawRoute, tags=[JINA.name])

FIELDS: Final = frozenset(
    {
        *("model", "input", "labels", "map", "template", "multi_label", "alpha", "truncate"),
        "user",
    }
)
# As many as a matrix of cosines may have; and what an answer may come to with the labels' names.
MAX_CELLS: Final = 262_144
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
# What an answer holds for each label of each input beside the label's name.
SCORE_BYTES: Final = 48
CALIBRATE: Final = "`nestvec model fit --concepts … --calibrate …`"


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The labels of a request's inputs, and the calls that gave them, that of the inputs first."""

    labels: Sequence[str]
    probabilities: LabelProbabilities
    results: tuple[EmbedResult, ...]


@router.post("/v1/classify", **LABELS_DOC)
async def classify_texts(request: Request) -> Response:
    """Choose labels of texts and pictures: with probabilities, and sets that hold the right one at a chosen error."""
    api_request = await read_request(request, JINA)
    api_request.check_fields(FIELDS)
    options = parse_label_options(api_request)
    is_anchored = bool(options.labels) or options.map_id is not None
    model = await api_request.acquire_model(OutputKind.DENSE if is_anchored else OutputKind.LABELS)
    items, is_list = read_items(
        api_request.body.get("input"), "input", check_count=api_request.check_count
    )
    read = await read_inputs(api_request, items, is_list=is_list)
    if options.map_id is not None:
        labelled = await _by_map(api_request, model, options, read, is_list=is_list)
    elif options.labels:
        labelled = await _by_labels(api_request, model, options, read, is_list=is_list)
    else:
        labelled = await _by_classifier(api_request, model, options, read, is_list=is_list)
    rows = await classifications_json(labelled.labels, labelled.probabilities)
    first = labelled.results[0]
    tokens = sum(sum(result.input_tokens) for result in labelled.results)
    answer: dict[str, Any] = {
        "object": "list",
        "model": api_request.model_name() or first.model,
        "data": None,
        "calibrated": labelled.probabilities.is_calibrated,
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
    }
    headers = result_headers(first, EmbedCall(()))
    if truncated := sum(sum(result.is_truncated) for result in labelled.results):
        headers["x-embed-truncated"] = str(truncated)
    content = await join_parts(object_parts(answer, {"data": listed(rows)}))
    return Response(content, headers=headers, media_type="application/json")


async def _by_labels(
    api_request: ApiRequest,
    model: ServedModel,
    options: LabelOptions,
    read: ReadInputs,
    *,
    is_list: bool,
) -> _Labelled:
    """Compare texts and pictures with labels that the request gives.

    Raises:
        InputError: Nothing is known of the labels that `multi_label` or `alpha` would need.
        RequestTooLargeError: Inputs and labels together are too many.
    """
    _check_uncalibrated(options, model, read)
    labels = options.labels
    api_request.check_count(len(labels) + len(read.inputs))
    await _reserve(api_request, options, labels, len(read.inputs))
    anchors = await embed(
        api_request,
        _call(api_request, model, options, fill_template(options.template, labels)),
        source="labels",
    )
    call = _call(api_request, model, options, read.inputs)
    result = await embed(api_request, call, is_list=is_list)

    def work() -> LabelProbabilities:
        cosines = result.vectors @ anchors.vectors.T
        if not read.headers:
            return label_probabilities(cosines, None)
        rows = LabelledRows(pictures := _pictures(read), np.zeros_like(pictures))
        is_several = options.is_multi_label is True
        return mixed_probabilities(cosines, rows, model.spec.label_scale, is_multi_label=is_several)

    size = result.vectors.size + anchors.vectors.size + len(read.inputs) * len(labels)
    return _Labelled(labels, await compute(work, size=size), (result, anchors))


def _pictures(read: ReadInputs) -> NDArray[np.bool_]:
    """Return which inputs are pictures, alone or beside texts, (B,)."""
    return np.array([isinstance(value, Picture | MixedInput) for value in read.inputs])


def _check_uncalibrated(options: LabelOptions, model: ServedModel, read: ReadInputs) -> None:
    """Refuse what labels that nobody calibrated cannot have: of pictures some models tell each label by itself.

    Raises:
        InputError: Names the field.
    """
    asked = {"multi_label": options.is_multi_label, "alpha": options.alpha}
    scale = model.spec.label_scale
    if scale is not None and scale.offset is not None and len(read.headers) == len(read.inputs):
        asked["multi_label"] = None
    for name, value in asked.items():
        if value:
            beside = " (of pictures, models of SigLIP's kind know it)" if read.headers else ""
            raise InputError(
                f"'{name}' needs texts of known labels, and of labels in a request nothing is known{beside}: fit a "
                f"map of them ({CALIBRATE}), and name it as 'map'",
                param=name,
            )


async def _by_map(
    api_request: ApiRequest,
    model: ServedModel,
    options: LabelOptions,
    read: ReadInputs,
    *,
    is_list: bool,
) -> _Labelled:
    """Compare texts and pictures with the labels of a map.

    Raises:
        InputError: The model has no such map, it has no labels, or is not calibrated for what is asked for.
        RequestTooLargeError: The inputs are too many for so many labels.
    """
    vector_map = find_map(options.map_id, model)
    if vector_map is None or not vector_map.labels:
        named = ", ".join(name for name, each in sorted(model.maps.items()) if each.labels)
        raise InputError(
            "this map has no labels; those that have: "
            f"{named or 'none; `nestvec model fit --concepts` makes them'}",
            param="map",
        )
    calibration = vector_map.label_calibration
    pictures = _pictures(read)
    calibrated = _calibrated(read, calibration)
    if calibration is not None and not calibrated.all():
        _refuse_other_kinds(options, calibration)
    threshold = _check_calibrated(options, calibration)
    labels = vector_map.labels
    await _reserve(api_request, options, labels, len(read.inputs))
    call = _call(api_request, model, options, read.inputs)
    result = await embed(api_request, call, is_list=is_list)
    work = partial(
        label_probabilities,
        result.vectors,
        calibration,
        is_multi_label=options.is_multi_label is True,
        threshold=threshold,
    )
    if not calibrated.all():
        rows = LabelledRows(pictures != vector_map.has_picture_anchors, calibrated)
        scale = model.spec.label_scale
        work = partial(mixed_probabilities, result.vectors, rows, scale, calibration)
    return _Labelled(labels, await compute(work, size=result.vectors.size), (result,))


async def _by_classifier(
    api_request: ApiRequest,
    model: ServedModel,
    options: LabelOptions,
    read: ReadInputs,
    *,
    is_list: bool,
) -> _Labelled:
    """Let a classifier choose from its own labels.

    Raises:
        InputError: The model is no classifier, so that there is nothing to choose from; or `alpha` is given.
        RequestTooLargeError: The texts are too many for so many labels.
    """
    spec = model.spec
    if OutputKind.LABELS not in spec.kinds:
        raise InputError(
            f"{spec.name} is no classifier: give 'labels' to choose from, or a 'map' that has some",
            param="labels",
        )
    if options.alpha is not None:
        raise InputError(
            "'alpha' needs scores of texts of known labels, which classifiers do not bring along; a map may have them "
            f"({CALIBRATE})",
            param="alpha",
        )
    await _reserve(api_request, options, spec.labels, len(read.inputs))
    call = EmbedCall(
        read.inputs,
        model=api_request.model_name(),
        kind=OutputKind.LABELS,
        truncate=options.truncate,
    )
    result = await embed(api_request, call, is_list=is_list)
    activation = spec.activation
    if options.is_multi_label is not None:
        activation = "sigmoid" if options.is_multi_label else "softmax"
    values = probabilities(result.vectors, activation)
    chosen = np.asarray(values >= 0.5) if options.is_multi_label else None  # noqa: PLR2004 - as likely as not
    known = LabelProbabilities(values, is_calibrated=False, chosen=chosen)
    return _Labelled(spec.labels, known, (result,))


def _call(
    api_request: ApiRequest,
    model: ServedModel,
    options: LabelOptions,
    inputs: Sequence[TextInput | Picture | MixedInput],
) -> EmbedCall:
    """Return the call of inputs or of labels: unit vectors, or cosines with a map's labels."""
    return EmbedCall(
        inputs,
        model=api_request.model_name(),
        normalize=options.map_id is None,
        truncate=options.truncate,
        prompt_role=labelling_role(model.spec),
        map_id=options.map_id,
    )


def _calibrated(read: ReadInputs, calibration: LabelCalibration | None) -> NDArray[np.bool_]:
    """Return which inputs are of the kind that taught a map its probabilities, (B,); none without a calibration.

    A picture and a text in one input are of neither kind.
    """
    if calibration is None:
        return np.zeros(len(read.inputs), bool)
    kind = Picture if calibration.is_of_pictures else str
    return np.array([isinstance(value, kind) for value in read.inputs])


def _refuse_other_kinds(options: LabelOptions, calibration: LabelCalibration) -> None:
    """Refuse for pictures what a map learned of texts, and the other way round: their cosines with labels differ.

    Raises:
        InputError: It is asked for; names the field.
    """
    asked = "multi_label" if options.is_multi_label else "alpha"
    if options.is_multi_label or options.alpha is not None:
        kind, other = ("pictures", "texts") if calibration.is_of_pictures else ("texts", "pictures")
        raise InputError(
            f"'{asked}' goes with {kind} here: on {kind} the map was calibrated, and {other} have other cosines with "
            f"labels; send {other} in requests of their own, without it, or calibrate a map on {other} ({CALIBRATE})",
            param=asked,
        )


def _check_calibrated(options: LabelOptions, calibration: LabelCalibration | None) -> float | None:
    """Return up to which score a label is in a set; None where no sets are asked for.

    Raises:
        InputError: The map was not calibrated for what is asked for.
    """
    asked = "multi_label" if options.is_multi_label else "alpha"
    if calibration is None:
        if options.is_multi_label or options.alpha is not None:
            raise InputError(
                f"'{asked}' needs a map that was calibrated on texts of known labels ({CALIBRATE})",
                param=asked,
            )
        return None
    if options.alpha is None:
        return None
    if calibration.temperature is None:
        raise InputError(
            "'alpha' needs a map that was calibrated on texts of one label each, and the texts of this one had several",
            param="alpha",
        )
    return calibration.conformal_threshold(options.alpha)


async def _reserve(
    api_request: ApiRequest, options: LabelOptions, labels: Sequence[str], texts: int
) -> None:
    """Wait until there is memory for an answer with each label of each text, its making included.

    Raises:
        RequestTooLargeError: It would be too large.
    """
    if texts * len(labels) > MAX_CELLS:
        raise RequestTooLargeError(
            f"{texts} texts x {len(labels)} labels are too many, max {MAX_CELLS}; send fewer texts",
            param="input",
        )
    names = sum(len(orjson.dumps(label)) for label in labels)
    # A label may stand in a list of its own too, beside its probability.
    places = 2 if options.is_multi_label or options.alpha is not None else 1
    size = texts * (places * names + SCORE_BYTES * len(labels))
    if size > MAX_ANSWER_BYTES:
        raise RequestTooLargeError(
            f"an answer that names each label for each text may have {MAX_ANSWER_BYTES} bytes; send fewer texts, or "
            "shorter labels",
            param="input",
        )
    # Its parts are joined to a whole.
    await reserve_answer(api_request, 2 * size)
