"""Settings of numbers: the arithmetic of a model, and how its weights and 8-bit vectors are made."""

from typing import Literal

from pydantic import BaseModel, Field

from nestvec.config.field_types import UserPath
from nestvec.config.model_settings import PrecisionName


class PrecisionSettings(BaseModel):
    """The arithmetic of a model, and how its weights and 8-bit vectors are made."""

    precision: PrecisionName = Field(
        "auto",
        description="Arithmetic of the model. On CPU auto is fp32, int8 is fastest, int8-accurate is nearer to "
        "fp32, bf16 needs nestvec[openvino] and a CPU with AVX512_BF16 or AMX. On a GPU auto is the first of fp16, "
        "bf16 and fp32 whose vectors are right.",
    )
    calibration_file: UserPath | None = Field(
        None,
        description="Texts, one a line, that set the ranges of the int8 precisions, instead of the bundled ones.",
    )
    quantize_compat: Literal["nestvec", "sentence-transformers"] = Field(
        "nestvec",
        description="How int8 and uint8 vectors are rounded: down, in ranges with a margin, or as "
        "sentence-transformers casts them.",
    )
    weight_storage: Literal["fp32", "fp16", "int8-table"] = Field(
        "fp32",
        description="How exported weights are stored: fp16 halves them on disk, and they are "
        "computed with as fp32; int8-table keeps the rows of the table of tokens in 8 bits, on disk and in memory, on "
        "CPUs.",
    )
