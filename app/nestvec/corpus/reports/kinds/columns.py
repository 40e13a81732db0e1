"""Whether the order of a record's fields changes its vector, and whether it is still found."""

from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figure, Figures, Report, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.neighbours import nearest
from nestvec.corpus.reports.statistics.resampling import mean_figure

ORDERS: Final = 30
MEAN: Final = "cosine of a record to itself in another order of fields"
LEAST: Final = "least such cosine"
FOUND: Final = "records found first in another order"
GOOD_COSINE: Final = 0.95


def measure(task: Task) -> Figures:
    """Write each probe record in other orders of its fields, and compare with the usual order."""
    records: list[dict[str, str]] = read_probes("records")
    random = np.random.default_rng(task.seed)
    fields = list(records[0])
    orders = [random.permutation(len(fields)).tolist() for _ in range(ORDERS)]
    usual = task.subject.embed([_text(record, fields) for record in records])
    texts = [
        _text(record, [fields[place] for place in order]) for record in records for order in orders
    ]
    vectors = task.subject.embed(texts)
    own = np.repeat(np.arange(len(records)), ORDERS)
    cosines = np.einsum("nd,nd->n", vectors, usual[own]).astype(np.float64)
    found = nearest(vectors, usual, 1)[:, 0] == own
    # Records differ, orders of one record hardly do: the interval is that of other records.
    by_record = cosines.reshape(len(records), ORDERS).mean(axis=1)
    return Figures(
        [
            mean_figure(MEAN, by_record, unit="cosine", better="higher"),
            Figure(LEAST, float(cosines.min()), len(texts), unit="cosine", better="higher"),
            mean_figure(
                FOUND,
                found.reshape(len(records), ORDERS).mean(axis=1),
                unit="share",
                better="higher",
            ),
        ]
    )


def advise(figures: Figures) -> list[str]:
    """Ask for one order where others move the vector."""
    if figures.value(MEAN, 1.0) >= GOOD_COSINE and figures.value(FOUND, 1.0) >= GOOD_COSINE:
        return []
    return [
        "the order of fields moves vectors: write records by one template, always in the same order"
    ]


def _text(record: dict[str, str], fields: list[str]) -> str:
    return ", ".join(f"{field}: {record[field]}" for field in fields)


REPORT: Final = Report(
    name="columns",
    title="Whether the order of a record's fields changes its vector.",
    measure=measure,
    advise=advise,
    source="column order as a property of table embeddings (arXiv:2310.07736)",
)
