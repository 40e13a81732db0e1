"""Settings of the device: CPU or GPU, which GPUs, and how much of their memory."""

from typing import Literal

from pydantic import BaseModel, Field

from nestvec.config.field_types import IdList


class GpuSettings(BaseModel):
    """Which device runs the models, and how much of its memory they may take."""

    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Execution provider; auto takes a GPU where there is one."
    )
    device_id: int = Field(0, ge=0, description="GPU, as CUDA counts them.")
    device_ids: IdList = Field(
        default_factory=list,
        description="GPUs to serve on together, comma-separated, each by an engine process of its own (needs "
        "http_processes); default: device_id alone.",
    )
    gpu_memory_utilization: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Part of the GPU's memory that all models of a process may take together.",
    )
    gpu_captured_tokens: int = Field(
        4096,
        ge=0,
        le=65_536,
        description="On a GPU, batches up to this many tokens may be filled up to one of a few sizes whose launches "
        "were captured at the start (CUDA graphs), as far as that was faster there; 0: none.",
    )
