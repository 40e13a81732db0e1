"""Makes the expected outputs anew, by transformers and torch in float64: `make heads` (needs `.venv-peers`).

One file, `expected.json`: for each case its configuration, its tensors' shapes and what texts give. Weights come from
the seed, token ids from the tiny tokenizer; late interaction and BGE-M3 are written out here in torch.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.heads.make_constants import COLBERT_TOKENS, MARKERS  # noqa: E402
from tests.model_store.heads.texts import PAIRS, TEXTS  # noqa: E402
from tests.support.tiny import write_tokenizer  # noqa: E402

SEED = 23
FAMILIES = HERE.parents[1] / "export/families"
CLASSIFIERS = [
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet"),
    *("deberta-v2", "gte", "nomic_bert", "jina_embeddings_v3", "modernbert", "eurobert"),
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "albert"),
]
MASKED = ["bert", "roberta", "distilbert", "mpnet", "modernbert"]
LEFT_OUT = ("position_ids", "token_type_ids", "inv_freq", "embed_scale")
MASK_ID = 4
M3_SPECIAL = (0, 1, 2, 3)


def config_of(family: str, **more: Any) -> dict[str, Any]:
    """Return a family's tiny configuration."""
    stored = json.loads((FAMILIES / f"{family}.json").read_text())
    return {**stored["config"], **more}


def built(auto: Any, config: dict[str, Any]) -> tuple[Any, dict[str, list[int]]]:
    """Build a model with weights of the seed, in float64; return it and its tensors' shapes."""
    fields = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    kind = transformers.AutoConfig.for_model(
        config["model_type"], **fields, attn_implementation="eager"
    )
    model = auto.from_config(kind).eval()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in LEFT_OUT) and name not in tied
    }
    tensors = random_weights(shapes, SEED)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(any(part in name for part in LEFT_OUT) or name in tied for name in missing), missing
    model.tie_weights()
    return model.double(), shapes


def tokenizer() -> Tokenizer:
    """Open the tiny tokenizer, so that it neither pads nor cuts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        library = Tokenizer.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    return library


def classifier(family: str, **more: Any) -> dict[str, Any]:
    """Compute scores of pairs and of single texts."""
    name = f"{family.title()}ForSequenceClassification"
    config = config_of(family, architectures=[name], **more)
    model, shapes = built(transformers.AutoModelForSequenceClassification, config)
    has_types = config.get("type_vocab_size", 0) > 1
    rows = []
    for inputs in [*PAIRS, *TEXTS]:
        encoded = (
            TOKENIZER.encode(*inputs) if isinstance(inputs, tuple) else TOKENIZER.encode(inputs)
        )
        kinds = {"token_type_ids": torch.tensor([encoded.type_ids])} if has_types else {}
        with torch.no_grad():
            rows.append(model(torch.tensor([encoded.ids]), **kinds).logits[0].tolist())
    return {"config": config, "tensors": shapes, "scores": rows}


def nemo_reranker() -> dict[str, Any]:
    """Compute scores as NeMo's bidirectional Llama does: of the mean of all states, divided by a temperature."""
    config = config_of(
        "llama_bidirec",
        architectures=["LlamaBidirectionalForSequenceClassification"],
        pooling="avg",
        temperature=0.5,
        num_labels=2,
    )
    model, shapes = built(
        transformers.AutoModelForSequenceClassification, {**config, "model_type": "llama"}
    )
    rows = []
    for inputs in [*PAIRS, *TEXTS]:
        pair = inputs if isinstance(inputs, tuple) else (inputs,)
        ids = TOKENIZER.encode(*pair).ids
        nothing_hidden = torch.zeros(1, 1, len(ids), len(ids), dtype=torch.float64)
        with torch.no_grad():
            states = model.model(torch.tensor([ids]), attention_mask=nothing_hidden)
            scores = model.score(states.last_hidden_state[0].mean(0)) / config["temperature"]
        rows.append(scores.tolist())
    return {"config": config, "tensors": shapes, "scores": rows}


def splade(family: str) -> dict[str, Any]:
    """Compute weights of all terms."""
    config = config_of(family, architectures=["ForMaskedLM"])
    model, shapes = built(transformers.AutoModelForMaskedLM, config)
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            logits = model(torch.tensor([TOKENIZER.encode(text).ids])).logits[0]
        rows.append(torch.log1p(torch.relu(logits)).amax(0).tolist())
    return {"config": config, "tensors": shapes, "terms": rows}


def colbert() -> dict[str, Any]:
    """Compute token vectors of queries and documents, as ColBERT's own code does."""
    config = config_of("bert", architectures=["HF_ColBERT"])
    model, shapes = built(transformers.AutoModel, config)
    shapes["linear.weight"] = [8, config["hidden_size"]]
    tensors = random_weights(shapes, SEED)
    model.load_state_dict(
        {n: torch.from_numpy(t).double() for n, t in tensors.items()}, strict=False
    )
    projection = torch.from_numpy(tensors["linear.weight"]).double()
    queries: list[Any] = []
    documents: list[Any] = []
    skipped = {TOKENIZER.token_to_id(":")}
    for text in TEXTS:
        ids = TOKENIZER.encode(text).ids
        for marker, vectors_of in zip(MARKERS, (queries, documents), strict=True):
            marked = [ids[0], marker, *ids[1:]]
            seen = [1] * len(marked)
            is_query = vectors_of is queries
            if is_query:
                marked = marked[:COLBERT_TOKENS]
                missing = COLBERT_TOKENS - len(marked)
                marked, seen = marked + [MASK_ID] * missing, seen[: len(marked)] + [0] * missing
            with torch.no_grad():
                states = model(
                    torch.tensor([marked]), attention_mask=torch.tensor([seen])
                ).last_hidden_state[0]
            vectors = torch.nn.functional.normalize(states @ projection.T, dim=1)
            kept_rows = [n for n, token in enumerate(marked) if is_query or token not in skipped]
            vectors_of.append(vectors[kept_rows].tolist())
    return {"config": config, "tensors": shapes, "queries": queries, "documents": documents}


def bge_m3() -> dict[str, Any]:
    """Compute the three outputs of one pass."""
    config = config_of("xlm-roberta")
    model, shapes = built(transformers.AutoModel, config)
    size = config["hidden_size"]
    extra = {"s.weight": [1, size], "s.bias": [1], "c.weight": [size, size], "c.bias": [size]}
    layers = {n: torch.from_numpy(t).double() for n, t in random_weights(extra, SEED).items()}
    dense, terms, tokens = [], [], []
    for text in TEXTS:
        ids = TOKENIZER.encode(text).ids
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0]
        dense.append(torch.nn.functional.normalize(states[0], dim=0).tolist())
        weights = torch.relu(states @ layers["s.weight"].T + layers["s.bias"])[:, 0]
        weight_by_id: dict[int, float] = {}
        for token_id, weight in zip(ids, weights.tolist(), strict=True):
            if token_id not in M3_SPECIAL and weight > 0:
                weight_by_id[token_id] = max(weight_by_id.get(token_id, 0.0), weight)
        terms.append(sorted(weight_by_id.items()))
        projected = states[1:] @ layers["c.weight"].T + layers["c.bias"]
        tokens.append(torch.nn.functional.normalize(projected, dim=1).tolist())
    return {
        "config": config,
        "tensors": shapes,
        "extra": extra,
        "dense": dense,
        "terms": terms,
        "tokens": tokens,
    }


TOKENIZER = tokenizer()


def main() -> None:
    """Write the file."""
    cases: dict[str, Any] = {f"classifier/{f}": classifier(f, num_labels=3) for f in CLASSIFIERS}
    cases["classifier/modernbert~mean"] = classifier(
        "modernbert", num_labels=2, classifier_pooling="mean"
    )
    cases["classifier/llama_bidirec"] = nemo_reranker()
    cases["reranker"] = classifier("bert", num_labels=1)
    cases |= {f"splade/{family}": splade(family) for family in MASKED}
    cases["colbert"] = colbert()
    cases["bge-m3"] = bge_m3()
    content = {"transformers": transformers.__version__, "seed": SEED, "cases": rounded(cases)}
    (HERE / "expected.json").write_text(json.dumps(content) + "\n")
    print(f"{len(cases)} cases")


def rounded(value: Any) -> Any:
    """Round floats to seven digits, which are enough."""
    if isinstance(value, float):
        return float(np.format_float_scientific(value, 7))
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
