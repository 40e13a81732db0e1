"""Write what model2vec makes of a folder with a quantised vocabulary and weights.

Run in a venv with model2vec (0.10.0 was used), at the repository's root:

    python -m tests.model_store.folder.make_model2vec
"""

import json
import tempfile
from pathlib import Path

from model2vec import StaticModel

from tests.model_store.folder.model2vec_folders import EXPECTED, TEXTS, VARIANTS, write_variant


def main() -> None:
    """Write the expected vectors of each variant."""
    expected = {}
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as scratch:
            write_variant(Path(scratch), name)
            model = StaticModel.from_pretrained(scratch)
            expected[name] = model.encode(TEXTS, normalize=False).astype(float).round(6).tolist()
    EXPECTED.write_text(json.dumps(expected) + "\n", "utf-8")


if __name__ == "__main__":
    main()
