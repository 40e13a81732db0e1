"""Options of `POST /v1/classify`: which labels there are to choose from, and how they are chosen."""

from dataclasses import dataclass

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.fields import (
    Body,
    boolean_field,
    invalid_item,
    option,
    text_field,
    texts_field,
    truncation_field,
)
from nestvec.engine.front.labelling import PLACE, is_template
from nestvec.engine.types import Truncation
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What a request asks for.

    Attributes:
        labels: Labels to choose from, each once; empty where a map or the model has them.
        map_id: The map that has labels; None for none.
        template: What labels are put into.
        is_multi_label: Whether labels may go together; None: as a classifier's model says, else not.
        alpha: The share of texts whose set may miss the right label; None for no sets.
        truncate: What is done with texts that are too long.
    """

    labels: tuple[str, ...]
    map_id: str | None
    template: str
    is_multi_label: bool | None
    alpha: float | None
    truncate: Truncation | None


def parse_label_options(api_request: ApiRequest) -> LabelOptions:
    """Read what a request asks for.

    Raises:
        InputError: A field is of the wrong type, or does not go with another.
        RequestTooLargeError: Labels are too many, or the template too long for so many.
    """
    body = api_request.body
    labels, map_id = _labels(api_request), text_field(body, "map")
    if labels and map_id is not None:
        raise InputError("give either 'labels' or 'map'", param="map")
    template = text_field(body, "template")
    if template is not None:
        if not labels:
            raise InputError(
                "'template' goes with 'labels'; those of a map were read through its own",
                param="template",
            )
        if not is_template(template):
            raise InputError(
                f"'template' must have '{PLACE}' once, for the label", param="template"
            )
        api_request.state.service.limits.check_template(template, len(labels))
    is_multi_label, alpha = boolean_field(body, "multi_label"), _alpha(body)
    if is_multi_label and alpha is not None:
        raise InputError("'alpha' goes with texts of one label each", param="alpha")
    return LabelOptions(
        labels, map_id, template or PLACE, is_multi_label, alpha, truncation_field(body)
    )


def _labels(api_request: ApiRequest) -> tuple[str, ...]:
    """Read the labels to choose from, each once; () for none.

    Raises:
        InputError: They are no texts, or empty ones.
    """
    if option(api_request.body, "labels") is None:
        return ()
    labels, _ = texts_field(
        api_request.body, "labels", check_count=api_request.check_count, accepts_single=False
    )
    for index, label in enumerate(labels):
        if not label.strip():
            raise invalid_item("labels", index, "must not be empty")
    return tuple(dict.fromkeys(labels))


def _alpha(body: Body) -> float | None:
    """Read the share of texts whose set may miss the right label.

    Raises:
        InputError: It is no number between 0 and 1.
    """
    value = option(body, "alpha")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError("'alpha' must be a number between 0 and 1", param="alpha")
    return float(value)
