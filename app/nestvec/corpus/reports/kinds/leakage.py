"""What a stolen vector tells of its text, by two attacks that need no weights of the model.

Words: a ridge regression from vectors to the words of texts, learned on texts of the attacker's own, guesses the ten
likeliest content words of unseen texts (Song and Raghunathan, CCS 2020, have stronger attacks; this is a lower bound).
Candidates: the attacker has a list of texts, one of which is right, and embeds all of them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figures, Need, Report, Task
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.retrieval import found_first
from nestvec.corpus.reports.statistics.sampling import drawn_note
from nestvec.engine.types import Float64Array, FloatArray

WORDS: Final = 2000
GUESSES: Final = 10
RIDGE: Final = 0.1
TRAINED_SHARE: Final = 0.8
MAX_TEXTS: Final = 6000
MIN_LETTERS: Final = 4
SIZES: Final = (None, 128, 64)
RECOVERED: Final = "known words recovered by ten guesses"
COMMONEST: Final = "the same by the ten commonest words"
IDENTIFIED: Final = "vectors that find their text among candidates"


def measure(task: Task) -> Figures:
    """Attack the vectors of a fifth of the texts with what the others teach; whole vectors and prefixes of them."""
    given = len(task.data.texts)
    rows = np.random.default_rng(task.seed).permutation(given)[:MAX_TEXTS].tolist()
    texts = [task.data.texts[row] for row in rows]
    trained = int(len(texts) * TRAINED_SHARE)
    vectors = task.subject.embed(texts)
    nothing = np.zeros((len(texts), 1), np.float32)
    figures = [mean_figure(COMMONEST, recovered(nothing, texts, trained), unit="share")]
    for size in SIZES:
        task.check()
        if size is not None and size >= vectors.shape[1]:
            continue
        stored = vectors[:, :size]
        stored = stored / np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1e-12)
        label = "" if size is None else f", first {size} dimensions"
        figures.append(
            mean_figure(
                RECOVERED + label, recovered(stored, texts, trained), unit="share", better="lower"
            )
        )
        hits = found_first(stored[trained:], stored[trained:])
        figures.append(mean_figure(IDENTIFIED + label, hits, unit="share", better="lower"))
    note = f"The attack learned on {trained} texts and was tried on {len(texts) - trained}; stronger ones are known."
    return Figures(figures, notes=[note, *drawn_note(given, MAX_TEXTS, "texts")])


def advise(figures: Figures) -> list[str]:
    """Say how vectors are to be kept."""
    return [
        f"{figures.value(RECOVERED):.0%} of known words come back from vectors alone (the commonest words give "
        f"{figures.value(COMMONEST):.0%}): keep vectors as you keep the texts; fewer dimensions help little"
    ]


def words_of(text: str) -> set[str]:
    """Return a text's words of four letters or more, in lower case."""
    plain = "".join(letter.lower() if letter.isalpha() else " " for letter in text)
    return {word for word in plain.split() if len(word) >= MIN_LETTERS}


def recovered(vectors: FloatArray, texts: Sequence[str], trained: int) -> Float64Array:
    """Return the share of the known words of each unseen text that are among ten guesses, `[N - trained]`.

    Args:
        vectors: What was stolen, `[N, D]`; the first `trained` rows are the attacker's own texts.
        texts: The N texts.
        trained: How many are the attacker's own.
    """
    counts = Counter(word for text in texts[:trained] for word in words_of(text))
    known = [word for word, _ in counts.most_common(WORDS)]
    index_of = {word: number for number, word in enumerate(known)}
    target = np.zeros((len(texts), len(known)), np.float32)
    for row, text in enumerate(texts):
        target[row, [index_of[word] for word in words_of(text) if word in index_of]] = 1
    mean = target[:trained].mean(axis=0)
    spread = vectors[:trained].std(axis=0) + 1e-6
    scaled = (vectors - vectors[:trained].mean(axis=0)) / spread
    left, right = scaled[:trained], target[:trained] - mean
    ridge = RIDGE * trained * np.eye(left.shape[1], dtype=np.float32)
    weights = np.linalg.solve(left.T @ left + ridge, left.T @ right)
    guessed = scaled[trained:] @ weights + mean
    guesses = min(GUESSES, len(known))
    best = np.argpartition(-guessed, guesses - 1, axis=1)[:, :guesses]
    hits = np.take_along_axis(target[trained:], best, axis=1).sum(axis=1)
    shares: Float64Array = (
        hits / np.minimum(guesses, np.maximum(1, target[trained:].sum(axis=1)))
    ).astype(np.float64)
    return shares


REPORT: Final = Report(
    name="leakage",
    title="What a stolen vector tells of its text.",
    measure=measure,
    advise=advise,
    needs=(Need.TEXTS,),
    source="ridge regression to words, a lower bound (after Song and Raghunathan, CCS 2020)",
    min_items={Need.TEXTS: 200},
)
