"""Samples are drawn evenly by a seed, keep their order, and are told of."""

import numpy as np
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note


def test_few_things_are_taken_as_they_are() -> None:
    """Nothing is drawn, and nothing said, where all are used."""
    texts = ["b", "a", "c"]
    assert drawn(texts, 3, 1) is texts
    assert drawn_note(3, 3, "texts") == []


def test_many_things_are_drawn_evenly_and_in_order() -> None:
    """Each is as likely as another, the same seed draws the same places, and the note says how many."""
    counts = np.zeros(20)
    for seed in range(400):
        found = drawn(range(20), 5, seed)
        assert list(found) == sorted(set(found))
        assert len(found) == 5
        counts[list(found)] += 1
    assert counts.min() > 60
    assert counts.max() < 145
    assert drawn([f"t{n}" for n in range(20)], 5, 3) == [f"t{n}" for n in drawn(range(20), 5, 3)]
    assert drawn_note(1200, 5, "texts") == ["A sample of 5 of the 1,200 texts, drawn by the seed."]
