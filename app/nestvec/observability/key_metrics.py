"""Metrics of API keys, by the key's public id."""

from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

# Keys with series of their own, in each process: there may be as many keys as an operator makes.
MAX_KEYS: Final = 1000


class WatchedUsage(Protocol):
    """What counts usage, as metrics see it."""

    problem: str


class WatchedKeys(Protocol):
    """The keys of a server, as metrics see them."""

    @property
    def problem(self) -> str:
        """Why the file of keys cannot be read; "" where it can."""

    @property
    def usage(self) -> WatchedUsage:
        """What counts usage."""


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
        # Of several processes the worst one.
        self.readable = Gauge(
            "nestvec_keys_readable",
            "0 while the file of keys cannot be read, and none of its keys is let in.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.readable.set(1)
        self.usage_down = Gauge(
            "nestvec_usage_store_down",
            "1 while what keys use cannot be written.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.rates_down = Gauge(
            "nestvec_rate_store_down",
            "1 while the Redis of rates_url is away, and each server grants its part of keys' rates.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._keys: WatchedKeys | None = None
        self._ids: set[str] = set()

    def label_of(self, key_id: str) -> str:
        """Return what a key is called in labels: its id, or "other" beyond the first thousand that were used."""
        if key_id in self._ids:
            return key_id
        if len(self._ids) >= MAX_KEYS:
            return "other"
        self._ids.add(key_id)
        return key_id

    def watch(self, keys: WatchedKeys) -> None:
        """Show from now on whether keys can be read and usage be written."""
        self._keys = keys
        self.sample()

    def sample(self) -> None:
        """Take over whether keys can be read and usage be written."""
        if self._keys is not None:
            self.readable.set(0 if self._keys.problem else 1)
            self.usage_down.set(1 if self._keys.usage.problem else 0)

    def note_rates(self, *, is_up: bool) -> None:
        """Note whether the Redis of rates answers."""
        self.rates_down.set(0 if is_up else 1)
