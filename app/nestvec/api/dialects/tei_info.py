"""The answer of TEI's `/info`."""

from typing import Any, Final

from nestvec import __version__
from nestvec.api.dialect_table import TEI
from nestvec.api.routes.models import quantization
from nestvec.api.state import ApiState
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import OutputKind, Truncation

# TEI's own default: this server bounds the tokens that wait, not the number of requests.
MAX_CONCURRENT_REQUESTS: Final = 512


def describe_server(state: ApiState, model: ServedModel) -> dict[str, Any]:
    """Return TEI's keys for the first model, then the space and quantization of its vectors."""
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
        "max_batch_tokens": model.core.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_inputs,
        "auto_truncate": dialect.default_truncation is not Truncation.ERROR,
        "tokenization_workers": state.service.threads,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "space": spec.space,
        "quantization": quantization(model.quantizer),
    }


def model_type(spec: ModelSpec) -> dict[str, Any]:
    """Return what the model is, as TEI's object of one key."""
    if OutputKind.LABELS in spec.kinds:
        by_id = {str(index): label for index, label in enumerate(spec.labels)}
        by_label = {label: int(index) for index, label in by_id.items()}
        labels = {"id2label": by_id, "label2id": by_label}
        return {"reranker" if spec.is_reranker else "classifier": labels}
    is_sparse = OutputKind.DENSE not in spec.kinds and OutputKind.SPARSE in spec.kinds
    return {"embedding": {"pooling": "splade" if is_sparse else spec.pooling}}
