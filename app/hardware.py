"""What this process may use of its machine."""

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")


def usable_cpus(cgroups: Path = CGROUPS) -> int:
    """CPUs this process may use: its affinity, or less where a container's quota allows less; at least 1.

    Args:
        cgroups: Where the cgroup file system is mounted.
    """
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota_v2(cgroups) or _quota_v1(cgroups)
    allowed = scheduled or 1
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota_v2(cgroups: Path) -> float | None:
    """`cpu.max` holds "quota period" in microseconds, or "max period"."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(cgroups: Path) -> float | None:
    """Two files; a quota of -1 is none."""
    try:
        quota = float((cgroups / "cpu/cpu.cfs_quota_us").read_text())
        period = float((cgroups / "cpu/cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
