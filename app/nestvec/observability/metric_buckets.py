"""Buckets of histograms that several topics share."""

from typing import Final

# Requests of a small model take a few milliseconds, queues under load seconds: 0.5 ms to 60 s. Where most answers are,
# between 1 and 250 ms, a bound is 1.4 times the one before, so that a quantile that is read off is that near.
SECONDS: Final = (
    *(0.0005, 0.001, 0.0014, 0.002, 0.0028, 0.004, 0.0056, 0.008, 0.011, 0.016, 0.022),
    *(0.032, 0.045, 0.064, 0.09, 0.125, 0.177, 0.25),
    *(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
