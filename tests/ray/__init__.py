"""Embedding on a cluster, as far as no cluster is needed."""
