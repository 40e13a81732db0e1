"""Which items run next, and in which batch: queues, budgets, predictions. Pure: no thread, clock, loop or log."""
