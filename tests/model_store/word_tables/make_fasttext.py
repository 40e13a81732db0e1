"""Train the tiny fastText model of the tests, and write what gensim makes of words seen and unseen.

Run in a venv with gensim (4.4.0 was used); the file and its expected vectors are committed:

    python tests/model_store/word_tables/make_fasttext.py tests/model_store/word_tables
"""

import json
import random
import sys
from pathlib import Path

from gensim.models import FastText
from gensim.models.fasttext import load_facebook_vectors, save_facebook_model

SEEN = 80
STEMS = (
    "alpha beta gamma delta water stone river field house light Zürich naïve café straße Ωmega "
    "привет мир книга 東京 水 ab a of in the"
)
ENDINGS = ("", "s", "ing", "ed", "er", "ly")
UNSEEN = (
    "alphas! betaingly gammaest waterfall Stone riverbed fieldlyer houses2 лунный приветствие "
    "книгами 東京都 水曜日 abc Zürcher cafés2 naïvetés straßen Ωmegas2 lightning"
)


def main(folder: Path) -> None:
    """Write `fasttext.bin` and `expected_fasttext.json`."""
    chooser = random.Random(5)
    words = [stem + ending for stem in STEMS.split() for ending in ENDINGS][:90]
    texts = [[chooser.choice(words) for _ in range(12)] for _ in range(300)]
    shape = {"vector_size": 8, "bucket": 400, "min_n": 3, "max_n": 5}
    model = FastText(**shape, window=3, min_count=1, seed=3, workers=1, sg=1, epochs=2)
    model.build_vocab(texts)
    model.train(texts, total_examples=len(texts), epochs=2)
    save_facebook_model(model, str(folder / "fasttext.bin"))
    vectors = load_facebook_vectors(str(folder / "fasttext.bin"))
    unseen = UNSEEN.split()
    seen = list(vectors.key_to_index)[:SEEN]
    assert not set(unseen) & set(vectors.key_to_index)
    expected = {word: vectors[word].astype(float).round(9).tolist() for word in [*seen, *unseen]}
    content = json.dumps({"unseen": unseen, "vectors": expected}, ensure_ascii=False)
    (folder / "expected_fasttext.json").write_text(content + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
