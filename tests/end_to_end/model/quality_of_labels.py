"""A part of `make quality`: directions out of the space, and conformal sets, of titles and abstracts of papers.

The set is lines of JSON with `title` and `abstract`; the figures are of the 262 papers that
docs/vectors/matryoshka.md names.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.label_calibration import (
    PLAIN_TEMPERATURE,
    LabelCalibration,
    kept_scores,
    softmax_at,
)
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.artefacts.maps import read_map
from nestvec.tools.quality.vectors import ModelVectors

from tests.support.server import command

PAIRS: Final = (
    *(("he", "she"), ("man", "woman"), ("father", "mother"), ("son", "daughter")),
    *(("boy", "girl"), ("brother", "sister"), ("husband", "wife"), ("king", "queen")),
)
# R@1 of titles among abstracts, with the direction and without it.
RECALL: Final = 0.809
MAX_DOT: Final = 1e-6
SPLITS: Final = 1000
ALPHAS: Final = (0.05, 0.1, 0.2)
MAX_UNDER: Final = 0.005


def labels(data: Path, folder: Path) -> Iterator[str]:
    """Yield what is wrong with a removal and with conformal sets on titles and abstracts."""
    path = data / "titles/titles.jsonl"
    if not path.is_file():
        print(f"no {path}: labels are not measured")
        return
    papers = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    pairs = folder / "pairs.tsv"
    pairs.write_text("\n".join("\t".join(pair) for pair in PAIRS))
    cache = ["--cache-dir", str(folder / "cache"), "--log-level", "error"]
    line = ["--remove", str(pairs), "--out", str(folder / "removal.npz"), *cache]
    subprocess.run(command("model", "fit", *line), check=True)
    settings = load_settings({"cache_dir": str(folder / "cache")})
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    with ModelVectors(service, lambda _: None) as model:
        queries, documents, *words = (
            model.raw(texts)[0]
            for texts in (
                [paper["title"] for paper in papers],
                [paper["abstract"] for paper in papers],
                *([pair[side] for pair in PAIRS] for side in (0, 1)),
            )
        )
    removal = read_map(folder / "removal.npz")
    _, _, directions = np.linalg.svd((unit(words[0]) - unit(words[1])).astype(np.float64))
    mapped = [unit(removal.apply(each)) for each in (queries, documents, *words)]
    dot = max(float(np.abs(each @ directions[0]).max()) for each in mapped)
    recalls = [recall(unit(queries), unit(documents)), recall(mapped[0], mapped[1])]
    print(f"R@1 {recalls[0]:.4f}, without the direction {recalls[1]:.4f}; longest dot {dot:.1e}")
    if not dot <= MAX_DOT:
        yield f"a removed direction is left: {dot}"
    if any(abs(value - RECALL) > 0.001 for value in recalls):
        yield f"R@1 {recalls} is not {RECALL} with and without the direction"
    yield from undercovered(unit(queries) @ unit(documents).T)


def undercovered(cosines: FloatArray) -> Iterator[str]:
    """Yield errors at which sets of abstracts hold a title's own less often than promised, over random halves."""
    values = softmax_at(cosines, PLAIN_TEMPERATURE)
    scores, random = 1 - np.diag(values), np.random.default_rng(0)
    half = len(scores) // 2
    for alpha in ALPHAS:
        covered = []
        for _ in range(SPLITS):
            order = random.permutation(len(scores))
            known = kept_scores(scores[order[:half]])
            learned = LabelCalibration(1.0, known, half, np.zeros((1, 2)), np.zeros(1))
            threshold = learned.conformal_threshold(alpha)
            covered.append(float((scores[order[half:]] <= threshold).mean()))
        print(f"sets at alpha {alpha} hold the right abstract of {mean(covered):.4f} of titles")
        if not mean(covered) >= 1 - alpha - MAX_UNDER:
            yield f"sets at alpha {alpha} cover {mean(covered)}"


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def unit(vectors: FloatArray) -> FloatArray:
    """Return vectors at unit length."""
    return finish(vectors, dimensions=None, normalize=True)


def recall(queries: FloatArray, documents: FloatArray) -> float:
    """Return how often the nearest document is the query's own."""
    nearest = (queries @ documents.T).argmax(axis=1)
    return float((nearest == np.arange(len(queries))).mean())
