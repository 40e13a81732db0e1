"""Models that are served: what one is, how a name finds it, and which of them are in memory."""
