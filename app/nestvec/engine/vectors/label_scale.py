"""What a model of pictures and texts learned in training about the cosines between both: their scale. Pure numpy.

CLIP's loss is a softmax of scaled cosines, SigLIP's a sigmoid of them with an offset: probabilities of labels are then
the model's own, as `logits_per_image` of transformers' classes gives them.

Source: CLIP (arXiv:2103.00020), section 2.3; SigLIP (arXiv:2303.15343), section 3.2.
"""

from dataclasses import dataclass

from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.postprocess import probabilities


@dataclass(frozen=True, slots=True)
class LabelScale:
    """How a model makes logits of the cosines of pictures with texts: cosine * factor + offset.

    Attributes:
        factor: What cosines are multiplied by, positive.
        offset: What is added, of models that were trained with a sigmoid; None of those trained with a softmax, to
            which the logits of one label alone say nothing.
    """

    factor: float
    offset: float | None = None

    @property
    def temperature(self) -> float:
        """What cosines are divided by before a softmax."""
        return 1 / self.factor

    def independent(self, cosines: FloatArray) -> Float64Array:
        """Return the probability of each label by itself, (B, K), of cosines (B, K); needs an offset."""
        offset = 0.0 if self.offset is None else self.offset
        return probabilities(cosines * float(self.factor) + offset, "sigmoid")
