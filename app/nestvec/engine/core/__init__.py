"""The engine core: queue, scheduler, workers, delivery. Token ids in, raw vectors out."""
