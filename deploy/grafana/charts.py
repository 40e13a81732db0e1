"""What a dashboard is made of, as data: panels, their queries, and the PromQL that many of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# What a panel looks at: the servers chosen, and of series of a model the models chosen.
SERVER: Final = 'job=~"$job",instance=~"$instance"'
MODEL: Final = SERVER + ',model=~"$model"'
# Requests that are about a model; operators' pages and refused paths are not users' traffic.
CALLS: Final = MODEL + ',model!=""'


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL.
        legend: What its lines are called, with labels in double braces.
    """

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A panel of lines.

    Attributes:
        title: What it shows.
        unit: Grafana's unit of its values.
        queries: Where they come from.
        description: What to make of them.
        maximum: Upper end of the axis; None: as the values have it.
    """

    title: str
    unit: str
    queries: Sequence[Query]
    description: str = ""
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A row of panels.

    Attributes:
        title: Its name.
        charts: Its panels, three beside one another.
    """

    title: str
    charts: Sequence[Chart]


def rate(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return what a counter grows by in a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """Return one rate over another; nothing where there is no whole."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return a quantile of a histogram, by labels."""
    buckets = rate(f"{metric}_bucket", f"{by}, le" if by else "le", labels)
    return f"histogram_quantile({q}, {buckets})"


def mean(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return the mean of a histogram's or summary's values, by labels."""
    return share(rate(f"{metric}_sum", by, labels), rate(f"{metric}_count", by, labels))


def gauge(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return a gauge, summed by labels."""
    return f"sum by ({by}) ({metric}{{{labels}}})"


def quantiles(metric: str, by: str = "model", labels: str = MODEL) -> list[Query]:
    """Return median, 95th and 99th percentile."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""
    return [
        Query(quantile(q, metric, by, labels), f"{legend} {name}".strip())
        for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]
