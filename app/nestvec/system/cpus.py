"""The machine's processor: its model, its cache, and how many CPUs this process may use."""

import math
import os
import platform
from functools import cache
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
CPUINFO: Final = Path("/proc/cpuinfo")
L2_CACHE: Final = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
# Instruction sets that decide which kernels run and how fast.
VECTOR_UNITS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name, family, model, and the vector units that matter."""
    fields = _first_cpu(cpuinfo)
    if fields is None:
        return platform.processor() or platform.machine()
    flags = set(fields.get("flags", "").split())
    units = " ".join(unit for unit in VECTOR_UNITS if unit in flags)
    name = fields.get("model name", platform.machine())
    return (
        f"{name}, family {fields.get('cpu family', '?')} model {fields.get('model', '?')}, {units}"
    )


@cache
def saturates_u8_s8(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether sums of two products of u8 and s8 may not fit what this CPU adds them in: x86 without VNNI."""
    flags = set((_first_cpu(cpuinfo) or {}).get("flags", "").split())
    return bool(flags & {"avx2", "ssse3"}) and not flags & {"avx_vnni", "avx512_vnni"}


def _first_cpu(cpuinfo: Path) -> dict[str, str] | None:
    """Return what the system says of its first CPU; None where it says nothing."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def l2_cache_bytes(size: Path = L2_CACHE) -> int | None:
    """Return the size of one core's L2 cache; None where the system does not say."""
    try:
        text = size.read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return None


def usable_cpus(cgroups: Path = CGROUPS) -> int:
    """Count the CPUs this process may use: its affinity, or fewer where a container's quota allows fewer; at least 1.

    Args:
        cgroups: Mount point of the cgroup file system.
    """
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota_v2(cgroups) or _quota_v1(cgroups)
    allowed = scheduled or 1
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota_v2(cgroups: Path) -> float | None:
    """Read the quota of cgroups v2, in CPUs: `cpu.max` holds "quota period" in microseconds, or "max period"."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(cgroups: Path) -> float | None:
    """Read the quota of cgroups v1, in CPUs, from two files; a quota of -1 is none."""
    try:
        quota = float((cgroups / "cpu/cpu.cfs_quota_us").read_text())
        period = float((cgroups / "cpu/cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
