"""The dialects in one table: what each does where a request does not say, and how it spells an error.

Source: the project's api-contract, sections 0.3 to 0.5, and 3 to 7. A new dialect is a row here, a row in `dispatch.py`
and a file of its own.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nestvec.api.error_bodies import (
    Envelope,
    Names,
    ollama_error,
    string_error,
    superset_error,
    tei_error,
)
from nestvec.engine.types import Truncation
from nestvec.errors import (
    BackendError,
    BodyFormatError,
    BodyTooLargeError,
    DegenerateVectorError,
    EmptyInputError,
    InputError,
    NestvecError,
    NotReadyError,
    QueueFullError,
    UnsupportedError,
)

Statuses = tuple[tuple[type[NestvecError], int], ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One vendor's way of asking and answering.

    Attributes:
        name: In metrics, logs and the OpenAPI document's tags.
        title: For people.
        envelope: Makes an error's body.
        truncate: Where a request does not say; None: as the server is set.
        max_inputs: The vendor's own cap on the inputs of a request; None: the server's.
        role_fields: Which fields say what the texts are for, and so which prompt goes before them.
        base64_is: "float32" always, or the "dtype" that was asked for.
        names: Its fields, by the name they have in the OpenAI dialect.
        statuses: Where they differ from the common ones (`error_handlers.STATUSES`); first match wins.
    """

    name: str
    title: str
    envelope: Envelope = superset_error
    truncate: Truncation | None = None
    max_inputs: int | None = None
    role_fields: tuple[str, ...] = ()
    base64_is: str = "float32"
    names: Names = field(default_factory=dict)
    statuses: Statuses = ()


def _tei_statuses(validation: int) -> Statuses:
    return (
        (BodyFormatError, 400),
        (EmptyInputError, 400),
        (BodyTooLargeError, 413),
        (UnsupportedError, 424),
        (InputError, validation),
        (BackendError, 424),
        (DegenerateVectorError, 424),
        (NotReadyError, 429),
    )


OPENAI: Final = Dialect(
    "openai",
    "OpenAI, Azure, vLLM",
    role_fields=("input_type", "task"),
    base64_is="dtype",
    names={"max_tokens": "truncate_prompt_tokens"},
)
TEI: Final = Dialect(
    "tei",
    "Text Embeddings Inference",
    envelope=tei_error,
    truncate=Truncation.END,
    role_fields=("prompt_name",),
    names={"input": "inputs"},
    statuses=_tei_statuses(422),
)
COHERE: Final = Dialect(
    "cohere",
    "Cohere",
    truncate=Truncation.END,
    max_inputs=96,
    role_fields=("input_type",),
    names={"input": "texts", "dimensions": "output_dimension", "output_dtype": "embedding_types"},
)
JINA: Final = Dialect(
    "jina",
    "Jina",
    max_inputs=2048,
    role_fields=("task",),
    names={"output_dtype": "embedding_type", "normalize": "normalized"},
)
VOYAGE: Final = Dialect(
    "voyage",
    "Voyage",
    truncate=Truncation.END,
    max_inputs=1000,
    role_fields=("input_type",),
    base64_is="dtype",
    names={"dimensions": "output_dimension", "truncate": "truncation"},
)
OLLAMA: Final = Dialect(
    "ollama",
    "Ollama",
    envelope=ollama_error,
    truncate=Truncation.END,
    names={"max_tokens": "options.num_ctx"},
    statuses=((QueueFullError, 503),),
)
OPEN_INFERENCE: Final = Dialect(
    "open-inference",
    "Open Inference Protocol v2",
    envelope=string_error,
    role_fields=("input_type", "prompt_name"),
    base64_is="dtype",
    names={"input": "text", "output_dtype": "embedding_type"},
)
# Through 1.8 validation was 413, and nothing was cut unasked.
TEI_1_8: Final = dataclasses.replace(TEI, truncate=Truncation.ERROR, statuses=_tei_statuses(413))

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect for dialect in (OPENAI, TEI, COHERE, JINA, VOYAGE, OLLAMA, OPEN_INFERENCE)
}
# Sections of `/docs`, in their order.
OPENAPI_TAGS: Final = [
    *({"name": dialect.name, "description": dialect.title} for dialect in DIALECTS.values()),
    {"name": "files", "description": "OpenAI's files"},
    {"name": "batches", "description": "OpenAI's batches"},
    {"name": "operations", "description": "Health, metrics"},
]
# Whose errors answer unknown paths.
PATHS: Final[tuple[tuple[str, Dialect], ...]] = (
    ("/api/", OLLAMA),
    ("/v2/models", OPEN_INFERENCE),
    ("/v2/health", OPEN_INFERENCE),
)


def dialect_of_path(path: str) -> Dialect:
    """Whose errors a path that no route serves is answered with."""
    return next((dialect for start, dialect in PATHS if path.startswith(start)), OPENAI)
