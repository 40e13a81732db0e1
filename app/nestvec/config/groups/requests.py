"""Settings of how requests are understood."""

from typing import Literal

from pydantic import BaseModel, Field

from nestvec.config.field_types import UserPath


class RequestSettings(BaseModel):
    """What a request that leaves something open means, and what is refused."""

    truncate: Literal["error", "end", "start", "windows"] = Field(
        "error",
        description="Too-long inputs when a request does not say: refuse, cut off the end or the start, or read all of "
        "it in overlapping windows and average.",
    )
    request_timeout_s: float = Field(
        55.0, gt=0, le=3600, description="Answer 504 after so long; callers may ask for less."
    )
    token_input: Literal["auto", "cl100k", "model", "reject"] = Field(
        "auto",
        description="Vocabulary of token arrays: cl100k (decoded to text), the model's own, or refused; "
        "auto: cl100k if its table can be had, else refused.",
    )
    cl100k_file: UserPath | None = Field(
        None, description="cl100k_base.tiktoken for hosts where tiktoken cannot download it."
    )
    allow_empty_inputs: bool = Field(
        True, description="Embed empty strings (as langchain needs) instead of refusing them."
    )
    tei_compat: Literal["1.8", "1.9"] = Field(
        "1.9",
        description="Which Text Embeddings Inference the TEI routes behave as: 1.9 cuts long inputs unless told not to "
        "and refuses with 422, 1.8 refuses them, with 413.",
    )
    reject_unknown_fields: bool = Field(
        False, description="Refuse request fields that we do not know."
    )
