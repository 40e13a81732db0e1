"""The virtual environment with the client SDKs, which `make clients` makes."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENTS_PYTHON = ROOT / ".venv-clients/bin/python"
# tiktoken's cache name of the cl100k table; litellm's wheel carries it under this name.
TABLE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


def clients_python() -> Path:
    """Return its interpreter; skip where there is none."""
    if not CLIENTS_PYTHON.is_file():
        pytest.skip("client SDKs absent, run `make clients`")
    return CLIENTS_PYTHON


def cl100k_table() -> Path:
    """Return the cl100k table from litellm's wheel; skip where there is none."""
    tables = list((ROOT / ".venv-clients").glob(f"lib/*/site-packages/litellm/**/{TABLE_NAME}"))
    if not tables:
        pytest.skip("cl100k table absent, run `make clients`")
    return tables[0]
