"""Settings of the vector cache, in memory and on disk, and of early exits."""

from typing import Literal

from pydantic import BaseModel, Field

from nestvec.config.field_types import UserPath


class VectorSettings(BaseModel):
    """Which vectors are kept in the vector cache, and which early exits may be served."""

    vector_cache_bytes: int = Field(
        64 * 1024 * 1024,
        ge=0,
        description="Memory for vectors of texts that were run before, of all models together; 0 keeps none.",
    )
    vector_cache_dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="How kept vectors are stored: float16 keeps twice as many, and rounds every vector.",
    )
    vector_cache_file: UserPath | None = Field(
        None,
        description="Also keep vectors in this SQLite file, across restarts; it holds no texts.",
    )
    vector_cache_file_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=1024 * 1024,
        description="Size of that file; the oldest vectors go first.",
    )
    allow_untrained_layers: bool = Field(
        False,
        description="Serve early exits (`layers`) that the model was neither trained nor fitted for.",
    )
