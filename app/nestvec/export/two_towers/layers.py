"""The transformer layers that both towers have: a layer norm before each part, biases everywhere, a plain MLP."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import FULL_ATTENTION, AttentionMask
from nestvec.export.two_towers.config import TowerSizes


@dataclass(frozen=True, slots=True)
class TowerBuilder:
    """Adds the layers of a tower to a graph.

    Attributes:
        context: The graph in the making.
        prefix: What stands before the names of the tower's tensors.
        sizes: The tower's sizes.
        mask: Which tokens are attended to.
    """

    context: BuildContext
    prefix: str
    sizes: TowerSizes
    mask: AttentionMask = FULL_ATTENTION

    def stack(self, state: str) -> Sequence[str]:
        """Add all layers; the states [T, H] before the first one, then behind each."""
        layers = [
            partial(self._layer, name=f"encoder.layers.{number}")
            for number in range(self.sizes.num_hidden_layers)
        ]
        return self.context.stack(state, layers, self.sizes.hidden_size)

    def norm(self, state: str, name: str) -> str:
        """Add a layer norm."""
        size = self.sizes.hidden_size
        scale = self.context.weights.get(f"{self.prefix}{name}.weight", (size,))
        bias = self.context.weights.get(f"{self.prefix}{name}.bias", (size,))
        return layer_norm(self.context.graph, state, name, scale, bias, self.sizes.layer_norm_eps)

    def mlp(self, state: str, name: str) -> str:
        """Add an MLP, [n, H] to [n, H]."""
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = self.linear(f"{name}.fc1", inner, size)
        last = self.linear(f"{name}.fc2", size, inner)
        return feed_forward(self.context, state, [first], last, self.sizes.hidden_act)

    def linear(self, name: str, rows: int, columns: int) -> Linear:
        """Read a linear layer of the tower, with its bias."""
        return self.context.linear(name, rows, columns, prefix=self.prefix, has_bias=True)

    def _layer(self, state: str, name: str) -> str:
        graph, size = self.context.graph, self.sizes.hidden_size
        parts = ("q_proj", "k_proj", "v_proj", "out_proj")
        query, key, value, output = (
            self.linear(f"{name}.self_attn.{part}", size, size) for part in parts
        )
        heads = self.sizes.num_attention_heads
        spec = AttentionSpec(query, key, value, output, heads, mask=self.mask)
        normed = self.norm(state, f"{name}.layer_norm1")
        state = graph.op("Add", state, self_attention(self.context, normed, spec))
        normed = self.norm(state, f"{name}.layer_norm2")
        return graph.op("Add", state, self.mlp(normed, f"{name}.mlp"))
