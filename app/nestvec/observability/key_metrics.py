"""Metrics of API keys, by the key's public id."""

from prometheus_client import CollectorRegistry, Counter


class KeyMetrics:
    """Counts what each key uses, and what it is refused.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["key_id", *labels], registry=registry)

        self.requests = counter("nestvec_key_requests_total", "Requests, by the key's id.")
        self.tokens = counter("nestvec_key_tokens_total", "Tokens run, by the key's id.")
        self.rate_limited = counter(
            "nestvec_rate_limited_total", "Requests refused by a key's limits.", "reason"
        )
