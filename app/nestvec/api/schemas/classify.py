"""`POST /v1/classify` in the OpenAPI document: Jina's fields, then ours."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation


class LabelsRequest(BaseModel):
    """Texts or pictures, and the labels to choose from: given here, those of a fitted map, or a classifier's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": ["the goalkeeper saved a penalty", "shares fell after the vote"],
                    "labels": ["sports", "politics", "finance"],
                    "template": "a text about {}",
                },
                {
                    "model": "clip-vit-base-patch32",
                    "input": [{"text": "hello"}, {"image": "data:image/png;base64,…"}],
                    "labels": ["cat", "dog"],
                    "template": "a photo of a {}",
                },
            ]
        }
    )

    input: str | list[str | dict[str, Any]] = Field(
        description="Texts, objects with `text`, or pictures as objects with `image`: a data URL or base64."
    )
    model: str | None = Field(None, description="May be left out where one model is served.")
    labels: list[str] | None = Field(None, description="Repetitions count once.")
    map: str | None = Field(None, description="Or a map of the model's that has labels.")
    template: str | None = Field(
        None, description="What each of `labels` is put into, where {} stands; default: {}."
    )
    multi_label: bool | None = Field(
        None,
        description="Labels may go together: each has a probability of its own. Needs a calibrated map, a "
        "classifier, or pictures for a model that was trained with a sigmoid (SigLIP).",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Give sets of labels that miss the right one in at most this share of texts.",
    )
    truncate: bool | Literal["error", "start", "end", "windows"] | None = None


class LabelScore(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class Classification(BaseModel):
    """The likeliest label of an input, and the probability of each, in the order of the labels."""

    object: Literal["classification"]
    index: int
    prediction: str
    score: float
    predictions: list[LabelScore]
    labels: list[str] | None = Field(None, description="Those that apply, with `multi_label`.")
    prediction_set: list[str] | None = Field(
        None, description="With `alpha`; empty where no label is likely enough."
    )


class ClassificationsResponse(BaseModel):
    """Classifications in input order."""

    object: Literal["list"]
    model: str
    data: list[Classification]
    calibrated: bool = Field(
        description="Whether probabilities were learned from texts of known labels."
    )
    usage: dict[str, int]


LABELS_DOC: Final = operation(
    "Choose labels", ClassificationsResponse, bodies={"jina": LabelsRequest}
)
