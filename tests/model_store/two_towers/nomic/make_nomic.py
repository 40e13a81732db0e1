"""Computes what is expected of nomic-embed-vision by its authors' published code.

It needs torch, transformers 4.57 and einops, and a folder with `modeling_hf_nomic_bert.py` and
`configuration_hf_nomic_bert.py` as they are published beside the weights (nomic-ai/nomic-embed-vision-v1.5, or
src/contrastors/models/huggingface of nomic-ai/contrastors), which are not in this repository:
`python tests/model_store/two_towers/nomic/make_nomic.py FOLDER`.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3]))

from tests.model_store.two_towers.nomic.nomic_vision import (  # noqa: E402 - the path comes first
    CONFIGS,
    reference,
    scaled,
    some_pixels,
    tensors,
)

TOLERANCE = 1e-6


def make(folder: Path) -> None:
    """Write unit vectors of random pixels by each of the models, [kinds, B, H]."""
    (folder / "__init__.py").touch()
    sys.path.insert(0, str(folder.parent))
    code = importlib.import_module(f"{folder.name}.modeling_hf_nomic_bert")
    fields = importlib.import_module(f"{folder.name}.configuration_hf_nomic_bert")
    pixels = scaled(some_pixels())
    rows = []
    for kind, config in CONFIGS.items():
        model = code.NomicVisionModel(fields.NomicBertConfig(**config)).double().eval()
        state = {name: torch.tensor(w).double() for name, w in tensors(config).items()}
        model.load_state_dict(state, strict=True)
        with torch.no_grad():
            states = model(torch.tensor(pixels).double()).last_hidden_state
        vectors = torch.nn.functional.normalize(states[:, 0], p=2, dim=1).numpy()
        apart = np.abs(vectors - reference(config, pixels)).max()
        assert apart < TOLERANCE, (kind, apart)
        rows.append(vectors.astype(np.float32))
        print(kind, apart)
    np.save(HERE / "nomic_vision.npy", np.stack(rows))


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
