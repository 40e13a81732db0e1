"""sentence-transformers with torch, from the same folder. Argument: folder of the model."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"

import sentence_transformers
import torch
from protocol import serve


def main() -> None:
    """Load the model, and serve with torch's threads as a setting."""
    model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        torch.set_num_threads(setting["threads"])
        return model.encode(list(texts), batch_size=setting["batch"], show_progress_bar=False)

    serve(
        {"sentence-transformers": sentence_transformers.__version__, "torch": torch.__version__},
        encode,
    )


main()
