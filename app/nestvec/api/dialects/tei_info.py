"""What TEI's `/info` says."""

from typing import Any, Final

from nestvec import __version__
from nestvec.api.dialect_table import TEI
from nestvec.api.routes.models import quantization
from nestvec.api.state import ApiState
from nestvec.engine.models.served_model import ModelSpec, ServedModel
from nestvec.engine.types import OutputKind, Truncation

# There is no cap on requests, but on tokens that wait; TEI's own default.
MAX_CONCURRENT_REQUESTS: Final = 512


def describe_server(state: ApiState, model: ServedModel) -> dict[str, Any]:
    """TEI's keys, then what a caller of ours should know of the first model."""
    spec, limits = model.spec, state.service.limits
    dialect = state.dialect(TEI.name)
    return {
        "model_id": spec.name,
        "model_sha": None,
        "model_dtype": spec.precision,
        "served_model_name": spec.name,
        "model_type": model_type(spec),
        "max_concurrent_requests": MAX_CONCURRENT_REQUESTS,
        "max_input_length": spec.max_tokens,
        "max_batch_tokens": model.core.traits.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_inputs,
        "auto_truncate": dialect.truncate is not Truncation.ERROR,
        "tokenization_workers": state.service.threads,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "space": spec.space,
        "quantization": quantization(model.quantiser),
    }


def model_type(spec: ModelSpec) -> dict[str, Any]:
    """One key: what the model is."""
    if OutputKind.LABELS in spec.kinds:
        named = {str(number): label for number, label in enumerate(spec.labels)}
        labels = {"id2label": named, "label2id": {label: int(n) for n, label in named.items()}}
        return {"reranker" if spec.is_reranker else "classifier": labels}
    is_sparse = OutputKind.DENSE not in spec.kinds and OutputKind.SPARSE in spec.kinds
    return {"embedding": {"pooling": "splade" if is_sparse else spec.pooling}}
