"""Which provider settings and machine lead to."""

import logging

import pytest
from nestvec.backends import providers
from nestvec.backends.providers import has_kernels, resolve_provider
from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import Driver, Gpu


@pytest.mark.parametrize(
    ("capability", "is_known"),
    [
        ("7.0", False),
        ("7.5", True),
        ("8.0", True),
        ("8.7", True),
        ("8.9", True),
        ("9.0", True),
        ("10.0", False),
        ("10.3", False),
        ("12.0", True),
        ("12.1", True),
    ],
)
def test_native_code_runs_on_cards_of_its_major_capability(
    capability: str, *, is_known: bool
) -> None:
    """A newer minor one runs it, another major one never does."""
    assert has_kernels(capability) is is_known


def test_a_card_without_kernels_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` serves on the CPU and says why once; `cuda` is an error that lists the capabilities there are."""
    card = Gpu(0, "Tesla V100", "7.0", 2**34, "GPU-0")
    monkeypatch.setattr(providers, "gpus", lambda: (card,))
    monkeypatch.setattr(providers, "read_driver", lambda: Driver("13.0", (card,)))
    monkeypatch.setattr(providers, "_has_gpu_build", lambda: True)
    with caplog.at_level(logging.WARNING):
        assert resolve_provider("auto", 0) == "cpu"
        assert resolve_provider("auto", 0) == "cpu"
    assert caplog.text.count("Tesla V100 has compute capability 7.0") == 1
    with pytest.raises(ProviderError, match=r"7\.0.* 9\.0.*set provider to cpu"):
        resolve_provider("cuda", 0)
