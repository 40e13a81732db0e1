"""The default model with the tokens of some abstracts: at most 60% of the bytes, and the same ids and rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.export.graph.weights import Weights
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.package import Package
from nestvec.model_store.pruning.folder import choose_tokens, write_pruned
from nestvec.tools.pruning import count_corpus, weight_bytes

from tests.support.data_sets import data_set

pytestmark = pytest.mark.model
TITLES = data_set("titles/titles.jsonl")
TABLE = "embeddings.word_embeddings.weight"
MAX_SHARE = 0.6


@pytest.mark.skipif(not TITLES.is_file(), reason="data/titles/titles.jsonl is absent")
def test_the_default_model_pruned_to_abstracts(default_package: Package, tmp_path: Path) -> None:
    """Rows of kept tokens and all other tensors are the same numbers, so that vectors are."""
    papers = [json.loads(line) for line in TITLES.read_text("utf-8").splitlines()]
    source, out = default_package.folder, tmp_path / "pruned"
    found = count_corpus(source, (paper["abstract"] for paper in papers), held_out=0.1)
    tokens = choose_tokens(source, found.used, frozenset(found.scripts))
    write_pruned(source.path, source, tokens, out, {"made_by": "test"})
    pruned = read_model_folder(out)
    assert weight_bytes(out) <= MAX_SHARE * weight_bytes(source.path)
    options = TokenizeOptions(Truncation.END)
    texts = [*found.sample, *(paper["title"] for paper in papers)]
    pairs = zip(
        source.open_tokenizer().encode_texts(texts, options),
        pruned.open_tokenizer().encode_texts(texts, options),
        strict=True,
    )
    kept = 0
    for old, new in pairs:
        if np.isin(old.ids, tokens.old_ids).all():
            np.testing.assert_array_equal(tokens.old_ids[new.ids], old.ids)
            kept += 1
    assert kept > len(papers) / 2
    with Weights(source.path) as whole, Weights(out) as smaller:
        assert set(whole.names()) == set(smaller.names())
        for name in whole.names():
            rows = whole.raw(name)
            expected = rows[tokens.old_ids] if name == TABLE else rows
            np.testing.assert_array_equal(smaller.raw(name), expected)
