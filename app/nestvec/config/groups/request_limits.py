"""Settings that bound the size of a request."""

from pydantic import BaseModel, Field


class RequestLimitSettings(BaseModel):
    """How large a request may be, in inputs, tokens, vectors and bytes."""

    interactive_inputs: int = Field(
        16,
        ge=0,
        description="Requests of more inputs are bulk: they let smaller ones pass, at a guaranteed share.",
    )
    max_inputs_per_request: int = Field(2048, ge=1, description="Most inputs in one request.")
    max_tokens_per_request: int = Field(
        300_000, ge=1, description="Most tokens in one request, counted after truncation."
    )
    max_token_vectors_per_request: int = Field(
        16_384, ge=1, description="Most token vectors in one answer (`/embed_all`, multi-vectors)."
    )
    max_pictures_per_request: int = Field(256, ge=1, description="Most pictures in one request.")
    max_picture_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, description="Largest file of a picture, without its base64."
    )
    max_picture_pixels: int = Field(
        16_000_000,
        ge=1,
        le=80_000_000,
        description="Most pixels of a picture, width times height; decoding takes some 16 bytes for each.",
    )
    max_picture_pixels_per_request: int = Field(
        128_000_000, ge=1, description="Most pixels of all pictures in one request."
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest request body, after decompression."
    )
    max_in_flight_bytes: int = Field(
        0,
        ge=0,
        description="Most bytes of bodies of requests under way, decompressed, in each HTTP process; beyond it 429. 0: "
        "as memory allows, a twentieth of it, at most 512 MiB.",
    )
    max_json_depth: int = Field(
        32, ge=4, le=500, description="Deepest nesting of a JSON body; deeper ones get 400."
    )
