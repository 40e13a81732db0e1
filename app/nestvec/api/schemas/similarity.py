"""Nestvec's own routes for similarity and rescoring in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation
from nestvec.api.schemas.openai import DtypeWord, Usage

# Of a picture: {"image": "data:image/…;base64,…"} and the other forms of `/v1/embeddings`.
TextOrObject = str | dict[str, Any]
PICTURES: Final = (
    "Texts, objects with `text`, or pictures as objects with `image` (a data URL or base64)."
)


class Compared(BaseModel):
    """Options on how vectors are compared."""

    model: str | None = Field(None, description="May be left out where one model is served.")
    dimensions: int | None = Field(None, ge=1, description="Compare so many leading values.")
    output_dtype: DtypeWord | None = Field(None, description="Compare vectors stored as this.")
    layers: int | None = Field(None, ge=1, description="Run so many layers only.")
    map: str | None = Field(None, description="The map of the model's that vectors go through.")
    truncate: bool | Literal["error", "start", "end", "windows"] | None = None


class SimilarityRequest(Compared):
    """Pairs, or two lists of which every text or picture is compared with every other."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pairs": [["a cat sits", "a cat is sitting"]], "explain": True},
                {"left": ["one", "two"], "right": ["three"], "output_dtype": "binary"},
                {"left": ["a cat"], "right": [{"image": "data:image/png;base64,…"}]},
            ]
        }
    )

    pairs: list[tuple[TextOrObject, TextOrObject]] | None = Field(None, description=PICTURES)
    left: TextOrObject | list[TextOrObject] | None = Field(None, description=PICTURES)
    right: TextOrObject | list[TextOrObject] | None = Field(None, description="Default: `left`.")
    metric: Literal["cosine", "bertscore", "maxsim"] | None = Field(
        None,
        description="Cosines of vectors (default); or of token vectors, each token with its nearest: BERTScore, "
        "whose candidates are on the left, or late interaction's sum over the left text's tokens.",
    )
    explain: bool | None = Field(
        None, description="Split each pair's cosine over its tokens; at most 16 pairs."
    )


class ExplainedToken(BaseModel):
    """A token; `start` and `stop` are null for special tokens."""

    text: str
    special: bool
    start: int | None
    stop: int | None


class Explanation(BaseModel):
    """The contributions of pairs of tokens to a cosine; they sum to it."""

    left_tokens: list[ExplainedToken]
    right_tokens: list[ExplainedToken]
    contributions: list[list[float]]
    similarity: float


class SimilarityResponse(BaseModel):
    """A value for each pair, or a row of values for each text on the left; BERTScore's F1 where that is the metric."""

    object: Literal["similarity"]
    model: str
    similarities: list[float] | list[list[float]]
    dimensions: int
    output_dtype: str
    usage: Usage
    metric: Literal["bertscore", "maxsim"] | None = Field(None, description="Absent for cosines.")
    precision: list[float] | list[list[float]] | None = Field(None, description="BERTScore's.")
    recall: list[float] | list[list[float]] | None = Field(None, description="BERTScore's.")
    explanations: list[Explanation] | None = None


class RescoreRequest(Compared):
    """A query, and the candidates that a first search found for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "a cat",
                    "documents": ["a cat sits", "rain"],
                    "output_dtype": "int8",
                    "top_n": 1,
                },
                {
                    "query": {"image": "data:image/png;base64,…"},
                    "documents": ["a cat", {"image": "data:image/png;base64,…"}],
                },
            ]
        }
    )

    query: TextOrObject = Field(description="A text, or an object with `text` or `image`.")
    documents: list[TextOrObject] | None = Field(
        None,
        description="The candidates: embedded, or taken from the vector cache. " + PICTURES,
    )
    vectors: list[list[float] | str] | None = Field(
        None,
        description="Or vectors of the candidates as stored, in `output_dtype` and `dimensions`.",
    )
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


class Rescored(BaseModel):
    """A candidate's index in the request, its cosine, and on request its text; of a picture null."""

    index: int
    score: float
    document: str | None = None


class RescoreResponse(BaseModel):
    """Candidates, the best first."""

    object: Literal["list"]
    model: str
    results: list[Rescored]
    usage: Usage


SIMILARITY_DOC: Final = operation(
    "Compare texts", SimilarityResponse, bodies={"similarity": SimilarityRequest}
)
RESCORE_DOC: Final = operation(
    "Second stage of a search", RescoreResponse, bodies={"rescore": RescoreRequest}
)
