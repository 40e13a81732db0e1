"""CPUs by affinity and by a container's quota."""

import os
from pathlib import Path

import pytest

from app.hardware import usable_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the affinity allowed eight."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("broken", 8),
        ("100000 0", 8),
    ],
)
def test_version_2_quota(tmp_path: Path, content: str, cpus: int) -> None:
    """Rounded up; never more than the affinity, never less than one."""
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("400000", 4)])
def test_version_1_quota(tmp_path: Path, quota: str, cpus: int) -> None:
    """Minus one is none."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert usable_cpus(tmp_path) == cpus


def test_without_cgroups_the_affinity_decides(tmp_path: Path) -> None:
    """As on a plain host."""
    assert usable_cpus(tmp_path) == 8
