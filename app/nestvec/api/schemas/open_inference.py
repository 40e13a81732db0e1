"""The Open Inference Protocol in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import (
    RAW,
    RAW_CONTENT,
    StringError,
    errors_of,
    json_content,
    operation,
)


class Tensor(BaseModel):
    """An input tensor: `text` of datatype BYTES, or `input_ids`."""

    name: str
    shape: list[int]
    datatype: Literal["BYTES", "INT32", "INT64"]
    data: list[str] | list[int] | None = None
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """Input tensors, in JSON or as raw bytes behind it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [
                        {
                            "name": "text",
                            "shape": [2],
                            "datatype": "BYTES",
                            "data": ["hello", "world"],
                        }
                    ]
                }
            ]
        }
    )

    inputs: list[Tensor]
    outputs: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="truncate, prompt_name, normalize, dimensions, embedding_type, timeout"
    )
    id: str | None = None


class InferResponse(BaseModel):
    """One output tensor, `embeddings`."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[dict[str, Any]]


class Described(BaseModel):
    """What the path asks for: the model's tensors, readiness, configuration or statistics."""

    model_config = ConfigDict(extra="allow")


class Server(BaseModel):
    """The server's name, version and extensions."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the process answers."""

    live: bool


class Ready(BaseModel):
    """Whether requests are served."""

    ready: bool


INFER_DOC: Final = operation(
    "Infer",
    InferResponse,
    errors=errors_of(StringError),
    content={
        "application/json": json_content({"open-inference": InferRequest}),
        RAW: RAW_CONTENT,
    },
    gives_bytes=True,
)
SERVER_DOC: Final = operation("Describe the server", Server, errors=errors_of(StringError, ()))
LIVE_DOC: Final = operation("Liveness", Live, errors=errors_of(StringError, ()))
READY_DOC: Final = operation("Readiness", Ready, errors=errors_of(StringError, (503,)))
MODEL_DOC: Final = operation(
    "Describe a model", Described, errors=errors_of(StringError, (401, 404, 503))
)
INDEX_DOC: Final = operation(
    "List models", list[dict[str, str]], errors=errors_of(StringError, (401, 503))
)
