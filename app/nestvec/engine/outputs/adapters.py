"""The table of outputs: which adapter makes which kind."""

from collections.abc import Mapping
from typing import Final

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.outputs.dense import DenseOutput
from nestvec.engine.outputs.joint import JointOutput, JointTokensOutput
from nestvec.engine.outputs.labels import LabelsOutput
from nestvec.engine.outputs.sparse import SparseOutput
from nestvec.engine.outputs.states import StatesOutput
from nestvec.engine.outputs.tokens import TokensOutput
from nestvec.engine.types import OutputKind

# Of one kind each. In the order in which an output says what a model is: one that gives labels is a classifier whatever
# else it gives.
SINGLE: Final[Mapping[OutputKind, OutputAdapter]] = {
    OutputKind.LABELS: LabelsOutput(),
    OutputKind.DENSE: DenseOutput(),
    OutputKind.SPARSE: SparseOutput(),
    OutputKind.TOKENS: TokensOutput(),
    OutputKind.STATES: StatesOutput(),
}
ADAPTERS: Final[Mapping[OutputKind, OutputAdapter]] = {
    **SINGLE,
    OutputKind.DENSE_SPARSE: JointOutput(SINGLE, OutputKind.DENSE_SPARSE),
    OutputKind.DENSE_TOKENS: JointTokensOutput(SINGLE, OutputKind.DENSE_TOKENS),
    OutputKind.SPARSE_TOKENS: JointTokensOutput(SINGLE, OutputKind.SPARSE_TOKENS),
    OutputKind.DENSE_SPARSE_TOKENS: JointTokensOutput(SINGLE, OutputKind.DENSE_SPARSE_TOKENS),
}


def model_words(spec: ModelSpec) -> str:
    """Say what a model is, in words, by the first of its outputs in `SINGLE`."""
    main = next(kind for kind in SINGLE if kind in spec.kinds)
    return SINGLE[main].model_words(spec)
