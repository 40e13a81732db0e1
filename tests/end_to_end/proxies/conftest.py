"""Each proxy that this machine has."""

import pytest

from tests.end_to_end.proxies.running import KINDS, ProxyKind


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ProxyKind:
    """Each proxy; skipped where there is no binary of it."""
    found: ProxyKind = request.param
    if found.binary() is None:
        pytest.skip(f"{found.name} absent: `make test-proxies` installs it")
    return found
