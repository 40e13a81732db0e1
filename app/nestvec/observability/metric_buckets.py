"""Buckets of histograms that several topics share."""

from typing import Final

# Requests of a small model take a few milliseconds, queues under load seconds: 0.5 ms to 60 s.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25),
    *(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
