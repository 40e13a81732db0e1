"""Poolings of ours that sentence-transformers has not are read alike from a folder's file and from a card."""

from pathlib import Path

import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.pooling_settings import read_pooling

from tests.support.tiny import write_json


@pytest.mark.parametrize("pooling", ["splade", "first_last_mean"])
def test_our_own_poolings_stand_alone(tmp_path: Path, pooling: str) -> None:
    """A file and a card may name one; neither may concatenate it with another."""
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode": pooling})
    assert read_pooling(tmp_path, (), {}) == (pooling, True)
    assert read_pooling(tmp_path, (), {"pooling": pooling}) == (pooling, True)
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode": ["mean", pooling]})
    with pytest.raises(FormatError, match=f"'{pooling}' is not one of .*overrides.pooling"):
        read_pooling(tmp_path, (), {})
    with pytest.raises(FormatError, match=f"'{pooling}' is not one of"):
        read_pooling(tmp_path, (), {"pooling": f"mean+{pooling}"})
