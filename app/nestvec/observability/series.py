"""Series of a metric by their labels, remembered: the library's own look-up takes longer than counting does."""

from typing import Generic, TypeVar

from prometheus_client.metrics import MetricWrapperBase

Metric = TypeVar("Metric", bound=MetricWrapperBase)
Labels = str | tuple[str, ...]


class Series(dict[Labels, Metric], Generic[Metric]):
    """The series of a metric, `series[label]` or `series[label, label]`; one that is not there yet is begun.

    Label values come from closed sets, so there are few. A look-up takes 0.1 us, the library's takes 0.9 us, and a
    request for one vector needs some twenty.

    Args:
        metric: The metric, whose labels are the key, in order.
    """

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._metric = metric

    def begin(self, *labels: str) -> None:
        """Begin a series at zero, so that its first change is seen as one."""
        self[labels if len(labels) > 1 else labels[0]]

    def __missing__(self, labels: Labels) -> Metric:
        """Begin a series."""
        values = labels if isinstance(labels, tuple) else (labels,)
        series = self[labels] = self._metric.labels(*values)
        return series
