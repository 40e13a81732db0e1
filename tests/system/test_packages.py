"""Imports of many modules at once, and versions of what is installed."""

import gc

import pytest
from nestvec.system.packages import imported_whole, installed_version


@pytest.mark.parametrize("is_on", [True, False])
def test_importing_leaves_the_collector_as_it_was(*, is_on: bool) -> None:
    """Nothing is collected inside, and afterwards it is what it was."""
    was_on = gc.isenabled()
    (gc.enable if is_on else gc.disable)()
    try:
        with imported_whole():
            assert not gc.isenabled()
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if was_on else gc.disable)()


def test_a_package_that_is_not_installed_has_no_version() -> None:
    """Versions are told without importing anything."""
    assert installed_version("no-such-package-of-anybody") is None
    assert installed_version("numpy")
