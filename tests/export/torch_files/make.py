"""Makes the two files anew, by torch: `python tests/export/torch_files/make.py` in a venv with torch."""

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.torch_files.values import base_values  # noqa: E402 - the path comes first


def main() -> None:
    """Write a state of views, shared arrays and every dtype, in today's format and in the one before it."""
    values = base_values()
    base = torch.from_numpy(values)
    state: OrderedDict[str, Any] = OrderedDict(
        base=base,
        transposed=base.T,
        part=base[1:4, 2:5],
        parameter=torch.nn.Parameter(base[0]),
        half=base.half(),
        bfloat16=base.bfloat16(),
        float64=base.double(),
        positions=torch.arange(7).expand((1, -1)),
        int32=torch.arange(5, dtype=torch.int32),
        int16=torch.arange(5, dtype=torch.int16),
        int8=torch.arange(-2, 3, dtype=torch.int8),
        uint8=torch.arange(5, dtype=torch.uint8),
        flags=torch.tensor([True, False, True]),
        empty=torch.zeros(0, 3),
        number=torch.tensor(3.5),
    )
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(state, HERE / "state.bin")
    torch.save(state, HERE / "before_1_6.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), HERE / "module.bin")
    print(np.__version__, torch.__version__)


if __name__ == "__main__":
    main()
