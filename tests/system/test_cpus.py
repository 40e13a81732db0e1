"""CPUs by affinity and by a container's quota."""

import os
from pathlib import Path

import pytest
from nestvec.system.cpus import cpu_model, l2_cache_bytes, saturates_u8_s8, usable_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the affinity allow eight CPUs."""
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
    """The quota is rounded up; it is never more than the affinity, never less than one."""
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("400000", 4)])
def test_version_1_quota(tmp_path: Path, quota: str, cpus: int) -> None:
    """A quota of minus one is none."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert usable_cpus(tmp_path) == cpus


def test_without_cgroups_the_affinity_decides(tmp_path: Path) -> None:
    """A plain host has no quota."""
    assert usable_cpus(tmp_path) == 8


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9R14
flags\t\t: fpu sse avx2 avx512f avx512_vnni

processor\t: 1
cpu family\t: 6
"""


def test_a_cpu_is_named_with_its_vector_units(tmp_path: Path) -> None:
    """The first CPU is described; family and model tell apart what one name covers."""
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert cpu_model(path) == "AMD EPYC 9R14, family 25 model 17, avx2 avx512f avx512_vnni"


def test_a_system_without_cpuinfo_has_a_name_too(tmp_path: Path) -> None:
    """MacOS has no cpuinfo."""
    assert cpu_model(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "size_bytes"), [("1024K\n", 1 << 20), ("512K", 512 << 10), ("", None), ("2M", None)]
)
def test_l2_cache(tmp_path: Path, content: str, size_bytes: int | None) -> None:
    """The size is read in the kernel's spelling; anything else is unknown."""
    path = tmp_path / "size"
    path.write_text(content)
    assert l2_cache_bytes(path) == size_bytes
    assert l2_cache_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("fpu ssse3 avx2", True),
        ("fpu ssse3 avx2 avx512f", True),
        ("fpu ssse3 avx2 avx_vnni", False),
        ("fpu ssse3 avx2 avx512f avx512_vnni", False),
        ("half thumb neon", False),
    ],
)
def test_which_cpus_saturate_products_of_u8_and_s8(
    tmp_path: Path,
    flags: str,
    saturates: bool,  # noqa: FBT001 - a case
) -> None:
    """x86 without VNNI does; with it, on ARM and where the system does not say, nothing is done about it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert saturates_u8_s8(cpuinfo) is saturates
    assert not saturates_u8_s8(tmp_path / "none")
