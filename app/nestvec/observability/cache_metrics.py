"""Metrics of the vector cache, which counts by itself: they are brought up to its figures at each sample."""

from prometheus_client import CollectorRegistry, Counter

from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.observability.shared_metrics import summed_gauge


class CacheMetrics:
    """Tells what a vector cache has counted. Its memory is shared by all models.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._hits = Counter(
            "nestvec_vector_cache_hits_total",
            "Inputs whose vector was kept.",
            ["model", "tier"],
            registry=registry,
        )
        self._counters = {
            name: Counter(f"nestvec_vector_cache_{name}_total", text, ["model"], registry=registry)
            for name, text in (
                ("misses", "Inputs whose vector was not kept."),
                ("saved_tokens", "Tokens that were not run, as their vector was kept."),
                ("coalesced_inputs", "Inputs that waited for the same one's run."),
            )
        }
        self._bytes = summed_gauge(
            registry, "nestvec_vector_cache_bytes", "What kept vectors take."
        )
        self._limit = summed_gauge(
            registry, "nestvec_vector_cache_limit_bytes", "What kept vectors may take."
        )
        self._entries = summed_gauge(registry, "nestvec_vector_cache_entries", "Kept vectors.")
        self._cache: VectorCache | None = None
        self._last_values: dict[tuple[str, str], int] = {}

    def watch(self, cache: VectorCache) -> None:
        """Sample a cache from now on."""
        self._cache = cache
        self._limit.set(cache.max_bytes)

    def sample(self) -> None:
        """Take over what the cache has counted; nothing where there is none."""
        cache = self._cache
        if cache is None:
            return
        for model, counts in list(cache.counts.items()):
            stored = counts.stored_hits
            for tier, value in (("memory", counts.hits - stored), ("file", stored)):
                self._advance(self._hits.labels(model, tier), (model, tier), value)
            for name, value in (
                ("misses", counts.misses),
                ("saved_tokens", counts.saved_tokens),
                ("coalesced_inputs", counts.coalesced),
            ):
                self._advance(self._counters[name].labels(model), (model, name), value)
        self._bytes.set(cache.held_bytes)
        self._entries.set(cache.entries)

    def _advance(self, counter: Counter, name: tuple[str, str], value: int) -> None:
        """Bring a counter up to what was counted elsewhere."""
        counter.inc(max(0, value - self._last_values.get(name, 0)))
        self._last_values[name] = value
