"""Disentangled attention: queries meet the projections of relative positions, and so do keys.

Source: DeBERTa (arXiv:2006.03654), section 3.1; buckets and shared projections as in DeBERTa-v3 (arXiv:2111.09543) and
transformers' modeling_deberta_v2.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import boolean
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.blocks import normed_rows
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import key_distances
from nestvec.export.layers.relative_positions import PositionTerms

RELATIVE_EMBEDDINGS: Final = "encoder.rel_embeddings.weight"
# Content to position, position to content.
TERMS: Final = ("c2p", "p2c")
# Names of the projected relative embeddings that each term multiplies.
TABLES: Final = {"c2p": "position_keys", "p2c": "position_queries"}


@dataclass(frozen=True, slots=True)
class _DisentangledConfig:
    """The fields of a config.json that disentangled attention depends on.

    Attributes:
        span: Rows of the relative embeddings for keys behind the query; as many are for keys ahead.
        buckets: Number of buckets of distances; 0 where each distance has a row.
        max_distance: Distances from here on share a row.
        terms: Which of `TERMS` are added.
        shares_projections: Whether positions are projected by the layers of queries and keys.
        norms_embeddings: Whether the relative embeddings go through a layer norm.
    """

    span: int
    buckets: int
    max_distance: int
    terms: tuple[str, ...]
    shares_projections: bool
    norms_embeddings: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "_DisentangledConfig":
        if not boolean(config, "relative_attention", default=False):
            raise FormatError("config.json: 'relative_attention' must be true")
        terms = config.get("pos_att_type") or []
        terms = terms.split("|") if isinstance(terms, str) else terms
        if not isinstance(terms, list) or not terms or not all(term in TERMS for term in terms):
            raise FormatError(f"config.json: 'pos_att_type' must be of {' and '.join(TERMS)}")
        max_distance = _integer(config, "max_relative_positions")
        if max_distance < 1:
            max_distance = _integer(config, "max_position_embeddings")
        buckets = max(_integer(config, "position_buckets"), 0)
        norm = str(config.get("norm_rel_ebd", "none")).lower()
        has_no_far_bucket = bool(buckets) and max_distance - 1 <= buckets // 2
        if max_distance < 1 or buckets == 1 or has_no_far_bucket:
            raise FormatError("config.json: 'position_buckets' must leave far positions to share")
        return cls(
            span=buckets or max_distance,
            buckets=buckets,
            max_distance=max_distance,
            terms=tuple(term for term in TERMS if term in terms),
            shares_projections=boolean(config, "share_att_key", default=False),
            norms_embeddings="layer_norm" in [part.strip() for part in norm.split("|")],
        )


@dataclass(frozen=True, slots=True)
class DisentangledAttention:
    """The attention of DeBERTa's second and third models; tensors are named below a layer's name.

    Attributes:
        query: The query layer, which projects positions too where projections are shared.
        key: The key layer, likewise.
        position_query: The query layer of positions where projections are not shared.
        position_key: The key layer of positions where projections are not shared.
    """

    query: str
    key: str
    position_query: str
    position_key: str

    def build(
        self, config: Mapping[str, Any], sizes: EncoderConfig, context: BuildContext, prefix: str
    ) -> Callable[[str], PositionTerms]:
        """Add the row of relative embeddings that each query and key take, which all layers share."""
        fields = _DisentangledConfig.read(config)
        embeddings = context.weights.get(
            prefix + RELATIVE_EMBEDDINGS, (2 * fields.span, sizes.hidden_size)
        )
        if fields.norms_embeddings:
            embeddings = _normed(embeddings, sizes, context, prefix)
        rows = _embedding_rows(context, fields, sizes.dimensions.max_positions or 1)
        width = sizes.hidden_size // sizes.num_attention_heads
        scale = 1 / math.sqrt(width * (1 + len(fields.terms)))

        def projected(layer: str) -> dict[str, Float32Array]:
            shared = {"c2p": self.key, "p2c": self.query}
            own = {"c2p": self.position_key, "p2c": self.position_query}
            names = shared if fields.shares_projections else own
            return {
                term: _projected(context, embeddings, f"{prefix}{layer}.{names[term]}", sizes)
                for term in fields.terms
            }

        if context.inputs.device is not None:
            cells = _packed_cells(context, rows, 2 * fields.span)
            return lambda layer: _device_terms(context.graph, layer, projected(layer), cells, scale)

        def terms_of(layer: str) -> PositionTerms:
            # Tables by term: "c2p" [1, heads, d, 2 * span], "p2c" [1, heads, 2 * span, d].
            tables = {
                term: context.graph.weight(
                    f"{layer}.{TABLES[term]}",
                    (table.transpose(0, 2, 1) if term == "c2p" else table)[None],
                )
                for term, table in projected(layer).items()
            }
            return PositionTerms(
                position_scores=lambda query, key: _position_scores(
                    context.graph, query, key, tables, rows
                ),
                scale=scale,
            )

        return terms_of


def _position_scores(
    graph: GraphBuilder, query: str, key: str, tables: Mapping[str, str], rows: str
) -> str:
    """Add the scores that positions contribute.

    Args:
        graph: Takes the nodes.
        query: [B, heads, S, d].
        key: [B, heads, d, S].
        tables: Projected relative embeddings by term: "c2p" [1, heads, d, 2 * span], "p2c" [1, heads, 2 * span, d].
        rows: The row of relative embeddings for each query and key, [S, S], int64.

    Returns:
        A value [B, heads, S, S].
    """
    shape = graph.op(
        "Concat",
        graph.op("Shape", query, start=0, end=3),
        graph.op("Shape", key, start=3, end=4),
        axis=0,
    )
    indices = graph.op("Expand", rows, shape)
    scores = []
    if "c2p" in tables:
        by_row = graph.op("MatMul", query, tables["c2p"])  # [B, heads, S, 2 * span]
        scores.append(graph.op("GatherElements", by_row, indices, axis=3))
    if "p2c" in tables:
        by_row = graph.op("MatMul", tables["p2c"], key)  # [B, heads, 2 * span, S]
        scores.append(graph.op("GatherElements", by_row, indices, axis=2))
    return scores[0] if len(scores) == 1 else graph.op("Add", *scores)


def _device_terms(
    graph: GraphBuilder,
    layer: str,
    projected: Mapping[str, Float32Array],
    cells: Mapping[str, str],
    scale: float,
) -> PositionTerms:
    """Make the terms of a layer in a graph for a device.

    Args:
        graph: Takes the nodes.
        layer: Name of the layer.
        projected: Projected relative embeddings by term, [heads, 2 * span, d].
        cells: By term, where each pair's score lies among those of all tokens and rows, [B, S, S], int64.
        scale: What scores are multiplied by.
    """
    tables = {
        term: graph.weight(f"{layer}.{TABLES[term]}", (table * scale).transpose(0, 2, 1))
        for term, table in projected.items()
    }
    heads, _, width = next(iter(projected.values())).shape

    def scores(query: str, key: str) -> str:
        states = {"c2p": query, "p2c": key}
        by_head = {term: graph.split_heads(states[term], heads, width) for term in tables}
        return _packed_scores(graph, by_head, tables, cells)

    return PositionTerms(packed_scores=scores, scale=scale)


def _packed_scores(
    graph: GraphBuilder,
    states: Mapping[str, str],
    tables: Mapping[str, str],
    cells: Mapping[str, str],
) -> str:
    """Add the scores that positions contribute on a device, where products need no padding.

    They are products of equal batches, one a head: other batches CUDA's provider multiplies by arrays of pointers, that
    it copies to the device anew in each run, and that no CUDA graph may hold.

    Args:
        graph: Takes the nodes.
        states: Queries or keys by the term that multiplies them, [T, heads, d].
        tables: Projected relative embeddings by term, scaled as scores are, [heads, d, 2 * span].
        cells: By term, where each pair's score lies among those of all tokens and rows, [B, S, S], int64.

    Returns:
        A value [B, heads, S, S].
    """
    scores = []
    for term, table in tables.items():
        by_head = graph.op("Transpose", states[term], perm=[1, 0, 2])
        by_row = graph.op("MatMul", by_head, table)  # [heads, T, 2 * span]
        flat = graph.weight("flat_rows", np.array([0, -1], np.int64))
        scores.append(
            graph.op("Gather", graph.op("Reshape", by_row, flat), cells[term], axis=1)
        )  # [heads, B, S, S]
    summed = scores[0] if len(scores) == 1 else graph.op("Add", *scores)
    return graph.op("Transpose", summed, perm=[1, 0, 2, 3])


def _packed_cells(context: BuildContext, rows: str, row_count: int) -> dict[str, str]:
    """Add where the score of each query and key lies in a matrix [T, row_count] by term, [B, S, S], int64."""
    graph = context.graph
    first = graph.op(
        "Mul", context.inputs.gather, graph.weight("row_count", np.array(row_count, np.int64))
    )
    # A content query's score lies in its own row, a content key's in that of the key.
    axes = {"c2p": 2, "p2c": 1}
    return {
        term: graph.op(
            "Add",
            graph.op("Unsqueeze", first, graph.weight(f"axis_{axis}", np.array([axis], np.int64))),
            rows,
        )
        for term, axis in axes.items()
    }


def _projected(
    context: BuildContext, embeddings: Float32Array, name: str, sizes: EncoderConfig
) -> Float32Array:
    """Project relative embeddings by a layer at export: [heads, 2 * span, d]."""
    size, heads = sizes.hidden_size, sizes.num_attention_heads
    weight = context.weights.get(f"{name}.weight", (size, size))
    projected = embeddings @ weight.T + context.weights.get(f"{name}.bias", (size,))
    return projected.reshape(-1, heads, size // heads).transpose(1, 0, 2).astype(np.float32)


def _normed(
    embeddings: Float32Array, sizes: EncoderConfig, context: BuildContext, prefix: str
) -> Float32Array:
    """Compute the layer norm of the relative embeddings at export."""
    size = (sizes.hidden_size,)
    scale = context.weights.get(f"{prefix}encoder.LayerNorm.weight", size)
    bias = context.weights.get(f"{prefix}encoder.LayerNorm.bias", size)
    return normed_rows(embeddings, scale, bias, sizes.layer_norm_eps)


def _embedding_rows(context: BuildContext, fields: _DisentangledConfig, max_positions: int) -> str:
    """Add the row of relative embeddings for each query and key, [S, S], int64."""
    graph = context.graph
    # Position of the query less that of the key, in the order of key less query.
    distances = np.arange(max_positions - 1, -max_positions, -1)
    if fields.buckets:
        distances = _bucketed(distances, fields.buckets, fields.max_distance)
    rows = np.clip(distances + fields.span, 0, 2 * fields.span - 1).astype(np.int64)
    offset = graph.weight("distance_offset", np.array(max_positions - 1, np.int64))
    indices = graph.op("Add", key_distances(graph, context.inputs), offset)
    return graph.op("Gather", graph.weight("distance_rows", rows), indices, axis=0)


def _bucketed(distances: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """Keep near distances and map far ones to buckets by logarithm; in float32, as where models were trained."""
    middle = buckets // 2
    size = np.where(np.abs(distances) < middle, middle - 1, np.abs(distances))
    ratio = np.maximum(size, 1).astype(np.float32) / np.float32(middle)
    max_logarithm = np.float32(np.log(np.float32((max_distance - 1) / middle)))
    far = np.ceil(np.log(ratio) / max_logarithm * np.float32(middle - 1)) + middle
    return np.where(size <= middle, distances, (far * np.sign(distances)).astype(np.int64))


def _integer(config: Mapping[str, Any], name: str) -> int:
    """Read an integer; -1, which turns an option off, where it is missing."""
    value = config.get(name, -1)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"config.json: '{name}' must be an integer")
    return value
