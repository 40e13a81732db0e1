"""The layer that stands between an encoder and a classifier's scores or a vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from nestvec.export.config.config_fields import positive_number
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.heads import Dense, check_activation, read_dense


@dataclass(frozen=True, slots=True)
class Inner:
    """Where a family keeps it.

    Attributes:
        dense: Its name.
        act: What follows it; a field of config.json and its default where that says.
        norm: Layer norm behind that; "" for none.
        epsilon: Field of config.json for the norm, and its default.
        bias_field: Field of config.json that says whether there are biases; "" where there must be.
    """

    dense: str
    act: str | tuple[str, str] = "tanh"
    norm: str = ""
    epsilon: tuple[str, float] = ("layer_norm_eps", 1e-12)
    bias_field: str = ""

    def read(
        self, weights: Weights, config: Mapping[str, Any], size: int, prefixes: Sequence[str] = ()
    ) -> Dense:
        """Take it out of a checkpoint.

        Args:
            weights: The checkpoint.
            config: Its config.json.
            size: Of the encoder's states.
            prefixes: Under which it may lie instead.

        Raises:
            FormatError: It is missing, of another shape, or its activation is unknown.
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
        scale = weights.get(f"{self.norm}.weight", (size,))
        bias_name = f"{self.norm}.bias"
        is_bare = bool(self.bias_field) and bias_name not in weights
        bias = np.zeros(size, np.float32) if is_bare else weights.get(bias_name, (size,))
        return replace(layer, norm=(scale, bias, positive_number(config, *self.epsilon)))


# ModernBERT has the same before both, mostly without biases.
MODERNBERT_INNER: Final = Inner(
    "head.dense",
    ("classifier_activation", "gelu"),
    norm="head.norm",
    epsilon=("norm_eps", 1e-5),
    bias_field="classifier_bias",
)
