"""Disentangled attention: content meets positions in both ways, by projections of the positions' own.

Source: DeBERTa (arXiv:2006.03654), section 3.1; buckets and shared projections as in DeBERTa-v3 (arXiv:2111.09543).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.layers.blocks import normed_rows
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.masks import distances
from nestvec.export.layers.relative import Relations

Floats = NDArray[np.float32]
TABLE: Final = "encoder.rel_embeddings.weight"
TERMS: Final = ("c2p", "p2c")  # content to position, position to content


@dataclass(frozen=True, slots=True)
class _Fields:
    """What of a config.json is about it.

    Attributes:
        span: Rows of the table for keys ahead; as many are for keys behind.
        buckets: 0 where each distance has a row.
    """

    span: int
    buckets: int
    longest: int
    terms: tuple[str, ...]
    shares_projections: bool
    norms_table: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "_Fields":
        if not config.get("relative_attention"):
            raise FormatError("config.json: 'relative_attention' must be true")
        terms = config.get("pos_att_type") or []
        terms = terms.split("|") if isinstance(terms, str) else terms
        if not isinstance(terms, list) or not terms or not all(one in TERMS for one in terms):
            raise FormatError(f"config.json: 'pos_att_type' must be of {' and '.join(TERMS)}")
        longest = _whole(config, "max_relative_positions")
        if longest < 1:
            longest = _whole(config, "max_position_embeddings")
        buckets = max(_whole(config, "position_buckets"), 0)
        norm = str(config.get("norm_rel_ebd", "none")).lower()
        if longest < 1 or buckets == 1 or (buckets and longest - 1 <= buckets // 2):
            raise FormatError("config.json: 'position_buckets' must leave far positions to share")
        return cls(
            span=buckets or longest,
            buckets=buckets,
            longest=longest,
            terms=tuple(one for one in TERMS if one in terms),
            shares_projections=bool(config.get("share_att_key", False)),
            norms_table="layer_norm" in [part.strip() for part in norm.split("|")],
        )


@dataclass(frozen=True, slots=True)
class Disentangled:
    """The way of DeBERTa's second and third models.

    Attributes:
        query: Tensor of the query layer, below a layer's name; `key` likewise.
        own_query: Where positions have their own, below a layer's name; `own_key` likewise.
    """

    query: str
    key: str
    own_query: str
    own_key: str

    def of_layers(
        self, config: Mapping[str, Any], sizes: EncoderConfig, site: Site, prefix: str
    ) -> Callable[[str], Relations]:
        """See `RelativePositions`."""
        fields = _Fields.read(config)
        graph, heads = site.graph, sizes.num_attention_heads
        table = site.weights.get(prefix + TABLE, (2 * fields.span, sizes.hidden_size))
        if fields.norms_table:
            table = self._normed(table, sizes, site, prefix)
        rows = self._rows(site, fields, sizes.dimensions.max_positions or 1)
        width = sizes.hidden_size // heads

        def projected(layer: str, own: str, shared: str) -> Floats:
            """(heads, 2 · span, d)."""
            name = f"{prefix}{layer}.{shared if fields.shares_projections else own}"
            size = sizes.hidden_size
            weight = site.weights.get(f"{name}.weight", (size, size))
            made = table @ weight.T + site.weights.get(f"{name}.bias", (size,))
            return made.reshape(-1, heads, width).transpose(1, 0, 2).astype(np.float32)

        def of_layer(layer: str) -> Relations:
            tables: dict[str, str] = {}
            if "c2p" in fields.terms:
                keys = projected(layer, self.own_key, self.key).transpose(0, 2, 1)
                tables["c2p"] = graph.weight(f"{layer}.position_keys", keys[None])
            if "p2c" in fields.terms:
                queries = projected(layer, self.own_query, self.query)
                tables["p2c"] = graph.weight(f"{layer}.position_queries", queries[None])

            def relate(query: str, key: str) -> str:
                shape = graph.op(
                    "Concat",
                    graph.op("Shape", query, start=0, end=3),
                    graph.op("Shape", key, start=3, end=4),
                    axis=0,
                )
                chosen = graph.op("Expand", rows, shape)
                parts = []
                if "c2p" in tables:
                    near = graph.op("MatMul", query, tables["c2p"])  # (B, heads, S, 2 · span)
                    parts.append(graph.op("GatherElements", near, chosen, axis=3))
                if "p2c" in tables:
                    near = graph.op("MatMul", tables["p2c"], key)  # (B, heads, 2 · span, S)
                    parts.append(graph.op("GatherElements", near, chosen, axis=2))
                return parts[0] if len(parts) == 1 else graph.op("Add", *parts)

            return Relations(relate=relate, scale=1 / math.sqrt(width * (1 + len(fields.terms))))

        return of_layer

    def _normed(self, table: Floats, sizes: EncoderConfig, site: Site, prefix: str) -> Floats:
        """Layer norm of the table, once and for all."""
        size = (sizes.hidden_size,)
        scale = site.weights.get(f"{prefix}encoder.LayerNorm.weight", size)
        bias = site.weights.get(f"{prefix}encoder.LayerNorm.bias", size)
        return normed_rows(table, scale, bias, sizes.layer_norm_eps)

    def _rows(self, site: Site, fields: _Fields, longest: int) -> str:
        """The table's row of each query and key, (S, S), int64."""
        graph = site.graph
        behind = np.arange(longest - 1, -longest, -1)  # query less key, by key less query
        found = _bucketed(behind, fields.buckets, fields.longest) if fields.buckets else behind
        rows = np.clip(found + fields.span, 0, 2 * fields.span - 1).astype(np.int64)
        offset = graph.weight("distance_offset", np.array(longest - 1, np.int64))
        places = graph.op("Add", distances(graph, site.inputs), offset)
        return graph.op("Gather", graph.weight("distance_rows", rows), places, axis=0)


def _bucketed(distance: NDArray[np.int64], buckets: int, longest: int) -> NDArray[np.int64]:
    """Near distances exactly, far ones by their logarithm; in float32, as where models were trained."""
    middle = buckets // 2
    away = np.where(np.abs(distance) < middle, middle - 1, np.abs(distance))
    near = np.maximum(away, 1).astype(np.float32) / np.float32(middle)
    most = np.float32(np.log(np.float32((longest - 1) / middle)))
    far = np.ceil(np.log(near) / most * np.float32(middle - 1)) + middle
    return np.where(away <= middle, distance, (far * np.sign(distance)).astype(np.int64))


def _whole(config: Mapping[str, Any], name: str) -> int:
    found = config.get(name, -1)
    if not isinstance(found, int) or isinstance(found, bool):
        raise FormatError(f"config.json: '{name}' must be an integer")
    return found
