"""Makes the expected scores of yes/no re-rankers anew, by transformers and torch in float64.

Run as `python tests/model_store/heads/make_yes_no.py` in a venv with both. Weights come from the seed; the template is
that of Qwen3-Reranker, in words of the tiny vocabulary.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.heads.yes_no import (  # noqa: E402
    CASES,
    CHAT_TEMPLATES,
    DOCUMENTS,
    INSTRUCTION,
    NO_ID,
    QUERIES,
    TEMPLATE,
    TRICKY,
    YES_ID,
    config_of,
)
from tests.support.tiny import write_tokenizer  # noqa: E402

SEED = 29


def messages(query: str, document: str, instruction: str | None) -> list[dict[str, str]]:
    """Return a pair as sentence-transformers makes messages of it."""
    system = [{"role": "system", "content": instruction}] if instruction is not None else []
    return [*system, {"role": "query", "content": query}, {"role": "document", "content": document}]


def scores(family: str, tokenizer: Any, *, is_tied: bool) -> dict[str, Any]:
    """Compute the softmax over two logits for each query, instruction and document."""
    config = config_of(family, is_tied=is_tied)
    fields = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    kind = transformers.AutoConfig.for_model(family, **fields, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(kind).eval()
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if "inv_freq" not in name and not (is_tied and name == "lm_head.weight")
    }
    state = {n: torch.from_numpy(t) for n, t in random_weights(shapes, SEED).items()}
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    model = model.double()
    rows = []
    for instruction in (None, INSTRUCTION):
        for query in QUERIES:
            for document in DOCUMENTS:
                text = tokenizer.apply_chat_template(
                    messages(query, document, instruction), tokenize=False
                )
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = model(torch.tensor([ids])).logits[0, -1]
                rows.append(torch.softmax(logits[[NO_ID, YES_ID]], 0)[1].item())
    return {"tensors": shapes, "scores": rows}


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    rendered = {}
    for name, template in CHAT_TEMPLATES.items():
        rendered[name] = [
            tokenizer.apply_chat_template(
                messages(*pair, instruction), chat_template=template, tokenize=False
            )
            for instruction in (None, "{query} of\n{document}")
            for pair in TRICKY
        ]
    tokenizer.chat_template = TEMPLATE
    cases = {
        name: scores(family, tokenizer, is_tied=is_tied)
        for name, (family, is_tied) in CASES.items()
    }
    content = {
        "transformers": transformers.__version__,
        "seed": SEED,
        "cases": cases,
        "rendered": rendered,
    }
    (HERE / "expected_yes_no.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
