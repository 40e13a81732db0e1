"""Makes the golden vectors of the default model: a float64 numpy forward pass over its own files.

Nothing of `app/nestvec/` is used here but the download; ids come from vocab.txt through the tokenizers library's own
BERT recipe, not from the tokenizer.json that the server reads. Run it with `make golden`.
"""

import hashlib
import json
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.sources import source_options
from nestvec.config.loading import load_settings
from nestvec.model_store.sources.fetch import fetch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import BertWordPieceTokenizer

from tests.end_to_end.golden.texts import golden_texts
from tests.support.reference import ReferenceBert

HERE: Final = Path(__file__).parent
VECTORS: Final = HERE / "all-MiniLM-L6-v2.npy"
ABOUT: Final = HERE / "all-MiniLM-L6-v2.json"
MAX_TOKENS: Final = 256


def compute(folder: Path) -> NDArray[np.float64]:
    """Return unit vectors of all golden texts, `[200, 384]`, float64."""
    config = json.loads((folder / "config.json").read_text())
    reference = ReferenceBert(config, load_file(folder / "model.safetensors"))
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(MAX_TOKENS)
    return np.stack([reference.vector(tokenizer.encode(text).ids) for text in golden_texts()])


def main() -> None:
    """Write the vectors, and a note of what they were made of."""
    folder = fetch("all-MiniLM-L6-v2", source_options(load_settings())).folder
    vectors = compute(folder)
    np.save(VECTORS, vectors.astype(np.float32))
    files = ("model.safetensors", "vocab.txt", "config.json")
    about = {
        "model": "all-MiniLM-L6-v2",
        "made_by": "tests/end_to_end/golden/make.py: float64 numpy, tests/support/reference.py",
        "texts": "tests/end_to_end/golden/texts.py",
        "texts_sha256": texts_hash(),
        "files_sha256": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files
        },
        "max_tokens": MAX_TOKENS,
        "tolerance": "cosine 0.99999: fp32 kernels differ from float64 by about 1e-6",
    }
    ABOUT.write_text(json.dumps(about, indent=1) + "\n")


def texts_hash() -> str:
    """Return the hash of all texts, as vectors of other texts are of no use."""
    return hashlib.sha256(json.dumps(golden_texts()).encode()).hexdigest()


if __name__ == "__main__":
    main()
