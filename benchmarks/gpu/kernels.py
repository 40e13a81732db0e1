"""Which of CUDA's kernels a batch spends its time in, seen by torch's profiler, which records the whole process."""

from collections.abc import Callable
from typing import Any, Final

TOP: Final = 25
US: Final = 1e-6
# Words of kernels' names by what they compute, the first that fits.
KINDS: Final = {
    "attention": ("flash", "fmha", "attention", "softmax", "cachekernel", "rotary", "paged"),
    "norm": ("layernorm", "rmsnorm", "skiplayer", "norm"),
    "product": ("gemm", "cutlass", "cublas", "nvjet", "xmma", "matmul", "wgmma"),
    "activation": ("gelu", "silu", "relu", "swish", "activation"),
    "copy": ("memcpy", "memset", "transpose", "gather", "slice", "concat", "split"),
}


def kind_of(kernel: str) -> str:
    """Return what a kernel computes, by its name; "other" for names that say nothing."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(w in name for w in words)), "other")


def kernel_table(work: Callable[[], object], runs: int = 3) -> dict[str, Any]:
    """Run some work several times, and return the kernels that it ran, by their time.

    Args:
        work: What to run; it has run before.
        runs: How often.

    Returns:
        "busy_s", the seconds of all kernels a run; "kinds", the share of each kind; "kernels", the longest: name, share
        of the time, launches a run.

    Raises:
        ImportError: There is no torch.
        RuntimeError: The profiler saw no kernel.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(runs):
            work()
    found = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in found)
    if not total:
        raise RuntimeError("the profiler saw no kernel")
    kinds: dict[str, float] = {}
    for event in found:
        kind = kind_of(event.key)
        kinds[kind] = kinds.get(kind, 0.0) + event.self_device_time_total / total
    longest = sorted(found, key=lambda event: -event.self_device_time_total)[:TOP]
    return {
        "busy_s": total * US / runs,
        "kinds": {
            kind: round(share, 4) for kind, share in sorted(kinds.items(), key=lambda k: -k[1])
        },
        "kernels": [
            [event.key[:120], round(event.self_device_time_total / total, 4), event.count // runs]
            for event in longest
        ],
    }
