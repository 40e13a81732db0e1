"""Which module a class named in modules.json is: by its whole path, since another package's class is other code.

Source: the modules of sentence-transformers 2 to 6, under the paths that these versions wrote; PyLate's `Dense`.
"""

from collections.abc import Mapping
from typing import Final

PACKAGE: Final = "sentence_transformers"
# Where a class is defined in versions 5.4 and newer: its package and its file there.
DEFINED: Final[Mapping[str, tuple[str, ...]]] = {
    "Transformer": ("base.modules.transformer",),
    "Dense": ("base.modules.dense",),
    # The first is 5.7's, the second 6's.
    "Normalize": ("sentence_transformer.modules.normalize", "base.modules.normalize"),
    "Pooling": ("sentence_transformer.modules.pooling",),
    "Dropout": ("sentence_transformer.modules.dropout",),
    "LayerNorm": ("sentence_transformer.modules.layer_norm",),
    "StaticEmbedding": ("sentence_transformer.modules.static_embedding",),
    "WeightedLayerPooling": ("sentence_transformer.modules.weighted_layer_pooling",),
    "SparseAutoEncoder": ("sparse_encoder.modules.sparse_auto_encoder",),
    "MLMTransformer": ("sparse_encoder.modules.mlm_transformer",),
    "SpladePooling": ("sparse_encoder.modules.splade_pooling",),
    "MultiVectorMask": ("multi_vector_encoder.modules.multi_vector_mask",),
    "HierarchicalTokenPooling": ("multi_vector_encoder.modules.token_pooling",),
    "LogitScore": ("cross_encoder.modules.logit_score",),
    "Router": ("base.modules.router",),
    "SparseStaticEmbedding": ("sparse_encoder.modules.sparse_static_embedding",),
}
# Packages that offer the classes under shorter paths, those of older versions first.
OFFERED: Final = (
    "models",
    "sparse_encoder.models",
    "base.modules",
    "sentence_transformer.modules",
    "sparse_encoder.modules",
    "cross_encoder.modules",
    "multi_vector_encoder.modules",
)
KIND_BY_CLASS: Final[Mapping[str, str]] = {
    **{
        f"{PACKAGE}.{path}.{kind}": kind
        for kind, paths in DEFINED.items()
        for path in (*paths, *OFFERED, *(f"{package}.{kind}" for package in OFFERED))
    },
    f"{PACKAGE}.models.Asym": "Router",
    "pylate.models.Dense": "Dense",
    "pylate.models.Dense.Dense": "Dense",
}
# Classes that do what the module of this kind does for these architectures only: code in a model's own repository.
KNOWN_CODE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "custom_st.Transformer": ("Transformer", ("jina_embeddings_v3", "jina_clip")),
    # The library's class for CLIP before its version 5.4, under its three paths.
    **dict.fromkeys(
        (
            f"{PACKAGE}.models.CLIPModel",
            f"{PACKAGE}.models.CLIPModel.CLIPModel",
            f"{PACKAGE}.sentence_transformer.modules.clip_model.CLIPModel",
        ),
        ("Transformer", ("clip",)),
    ),
    # perplexity-ai/pplx-embed-v1.
    "st_quantize.FlexibleQuantizer": ("TanhQuantizer", ("bidirectional_pplx_qwen3",)),
}


def module_kind(class_name: str, *, is_plain: bool = False) -> str | None:
    """Return a module's kind by its class; None for a class that is not known.

    Args:
        class_name: The `type` of modules.json, with its package.
        is_plain: Whether a card says that the model's own code computes what the modules of these names do.
    """
    if class_name in KNOWN_CODE:
        return KNOWN_CODE[class_name][0]
    if is_plain and not is_library_class(class_name):
        return class_name.rsplit(".", 1)[-1]
    return KIND_BY_CLASS.get(class_name)


def is_library_class(class_name: str) -> bool:
    """Whether a class is sentence-transformers' own, known here or not."""
    return class_name.split(".", 1)[0] == PACKAGE


def suits(class_name: str, architecture: str) -> bool:
    """Whether a class of a known kind computes it for this architecture."""
    return class_name not in KNOWN_CODE or architecture in KNOWN_CODE[class_name][1]
