"""The dense layer between an encoder and a classifier's scores or a vocabulary.

Source: transformers' `…PredictionHeadTransform` and `…ClassificationHead` classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from nestvec.export.config.config_fields import positive_number
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import Dense, check_activation, read_dense


@dataclass(frozen=True, slots=True)
class HeadTransform:
    """Where a family's checkpoints keep the layer.

    Attributes:
        dense: Name of the linear layer.
        act: Activation behind it; or the field of config.json that names it, and that field's default.
        norm: Name of the layer norm behind that; "" for none.
        other_norm: The name that other checkpoints have for it.
        epsilon: Field of config.json with the norm's epsilon, and its default.
        bias_field: Field of config.json that says whether there are biases; "" where there must be.
    """

    dense: str
    act: str | tuple[str, str] = "tanh"
    norm: str = ""
    other_norm: str = ""
    epsilon: tuple[str, float] = ("layer_norm_eps", 1e-12)
    bias_field: str = ""

    def read(
        self, weights: Weights, config: Mapping[str, Any], size: int, prefixes: Sequence[str] = ()
    ) -> Dense:
        """Read the layer from a checkpoint.

        Args:
            weights: The checkpoint.
            config: Its config.json.
            size: Columns of the encoder's states, H; the layer gives as many.
            prefixes: Prefixes that its name may have instead of none.

        Raises:
            FormatError: A tensor is missing or of another shape, or the activation is unknown.
        """
        act = self.act
        if not isinstance(act, str):
            field, default = act
            act = check_activation(str(config.get(field, default)), f"config.json: {field}")
        names = [self.dense, *(prefix + self.dense for prefix in prefixes)]
        has_bias = not self.bias_field or bool(config.get(self.bias_field))
        layer = read_dense(weights, names, size, size, act=act, needs_bias=has_bias)
        if not self.norm:
            return layer
        has_other = bool(self.other_norm) and f"{self.norm}.weight" not in weights
        norm = self.other_norm if has_other else self.norm
        scale = weights.get(f"{norm}.weight", (size,))
        bias_name = f"{norm}.bias"
        is_bare = bool(self.bias_field) and bias_name not in weights
        bias = np.zeros(size, np.float32) if is_bare else weights.get(bias_name, (size,))
        return replace(layer, norm=(scale, bias, positive_number(config, *self.epsilon)))


# ModernBERT has the same layer before scores and before its vocabulary, mostly without biases.
MODERNBERT_TRANSFORM: Final = HeadTransform(
    "head.dense",
    ("classifier_activation", "gelu"),
    norm="head.norm",
    epsilon=("norm_eps", 1e-5),
    bias_field="classifier_bias",
)
