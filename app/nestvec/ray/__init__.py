"""Embedding on a cluster by Ray Data: `Embed` for pipelines of one's own, and what `nestvec embed --ray` runs."""

from nestvec.ray.embed import Embed

__all__ = ["Embed"]
