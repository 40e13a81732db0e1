"""Reads which attention kernels ran, as printed by onnxruntime with ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO=1. Pure."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEBUG: Final = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"
# Kernels that need no scores in memory. MATH is the one that writes them out, and waits for the host on the way.
FUSED: Final = (
    "FLASH_ATTENTION",
    "EFFICIENT_ATTENTION",
    "CUDNN_FLASH_ATTENTION",
    "TRT_FUSED_ATTENTION",
)
_LINE: Final = re.compile(
    r"Operator=(?P<op>\w+)(?: Node=(?P<node>\S+))? DataType=(?P<dtype>\w+) SdpaKernel=(?P<kernel>\w+)"
)


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """The kernel that an attention op took.

    Attributes:
        op: "PackedMultiHeadAttention", "PagedAttention", …
        dtype: "fp16", "bf16" or "fp32".
        kernel: "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH", …
    """

    op: str
    dtype: str
    kernel: str


def read_attention_kernels(lines: Iterable[str]) -> Counter[AttentionKernel]:
    """Count how often each kernel ran, by the lines that a process printed among others."""
    counts: Counter[AttentionKernel] = Counter()
    for line in lines:
        if match := _LINE.search(line):
            counts[AttentionKernel(match["op"], match["dtype"], match["kernel"])] += 1
    return counts
