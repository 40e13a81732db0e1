"""What the libraries read of a folder, field by field, and what a few such fields do: `expected_claims.json`.

Run with a Python that has torch, transformers and ml_dtypes, once for each major version of transformers;
each fills in the names of its own:

    python tests/model_store/truth/make_claims.py
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.model_store.truth.make_weights import (  # noqa: E402 - the path comes first
    DECODER,
    IDS,
    float_tensors,
)

EXPECTED: Final = HERE / "expected_claims.json"
FAMILIES: Final = (
    *("bert", "camembert", "deberta-v2", "distilbert", "electra", "eurobert", "gemma3_text"),
    *("llama", "mistral", "modernbert", "mpnet", "nomic_bert", "qwen2", "qwen3", "roberta", "t5"),
    "xlm-roberta",
)
# Folders of transformers' models whose classes read tokenizer_config.json.
TOKENIZERS: Final = (
    *("bert", "distilbert", "electra", "mpnet", "roberta", "longformer", "xlm_roberta"),
    *("camembert", "deberta_v2", "t5", "llama", "gemma", "cohere", "gpt_neox", "qwen2", "gpt2"),
)
TOKENIZER_BASES: Final = (
    *("tokenization_utils_base.py", "tokenization_utils_fast.py"),
    *("tokenization_utils_tokenizers.py", "models/auto/tokenization_auto.py"),
)
# Arguments of functions, which are no fields of a file.
NO_FIELDS: Final = frozenset({"self", "kwargs", "args", "config", "data", "encoding", "content"})
LOOKUPS: Final = ("pop", "get", "setdefault")
SOURCES: Final = ("kwargs", "init_kwargs", "tokenizer_config", "model_config", "config")
WINDOW: Final = {**DECODER, "sliding_window": 4}
USED: Final = {**WINDOW, "use_sliding_window": True}
# What a decoder's class makes of windows.
CASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "qwen2, no windows": DECODER,
    "qwen2, windows that are not used": WINDOW,
    "qwen2, windows behind the first layer": {**USED, "max_window_layers": 1},
    "qwen2, windows in all layers": {**USED, "max_window_layers": 0},
    "qwen2, more full layers than there are": USED,
    "mistral, windows": {**WINDOW, "model_type": "mistral"},
    "mistral, windows that seem to be off": {
        **WINDOW,
        "model_type": "mistral",
        "use_sliding_window": False,
    },
    "llama, windows that its class has not": {**WINDOW, "model_type": "llama"},
}


def main() -> None:
    """Ask the libraries, and write what they say beside what the other version said."""
    import transformers

    stored = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else {"fields": {}}
    version = transformers.__version__
    major = version.split(".", 1)[0]
    stored["fields"][major] = {
        "version": version,
        "config.json": dict(_config_fields()),
        "tokenizer_config.json": sorted(_tokenizer_fields(Path(transformers.__file__).parent)),
    }
    if major == "4":
        stored["vectors"] = dict(_vectors())
    EXPECTED.write_text(json.dumps(stored, sort_keys=True).replace("]], ", "]],\n") + "\n")


def _config_fields() -> Iterator[tuple[str, list[str]]]:
    """The fields of each family's configuration class, its base class's among them."""
    import transformers

    for family in FAMILIES:
        if family in transformers.CONFIG_MAPPING:
            kind = transformers.CONFIG_MAPPING[family]
            config = kind()
            names = {*config.to_dict(), *inspect.signature(kind.__init__).parameters}
            names |= {*config.attribute_map, *(name for name in vars(config) if name[0] != "_")}
            yield family, sorted(names - NO_FIELDS)


def _tokenizer_fields(package: Path) -> set[str]:
    """Every argument of a tokenizer class, and every name that it or its base looks up."""
    files = [package / name for name in TOKENIZER_BASES]
    for name in TOKENIZERS:
        files += sorted((package / "models" / name).glob("tokenization_*.py"))
    names: set[str] = set()
    for file in files:
        if file.is_file() and not file.stem.endswith("_tf"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                names |= set(_names_of(node))
    return names - NO_FIELDS


def _names_of(node: ast.AST) -> Iterator[str]:
    """Arguments of a constructor, and texts that are looked up in the file's content."""
    if isinstance(node, ast.FunctionDef) and node.name == "__init__":
        names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
        if names & {"vocab", "vocab_file"}:
            yield from names
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOOKUPS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in SOURCES
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ):
        yield str(node.args[0].value)


def _vectors() -> Iterator[tuple[str, list[list[float]]]]:
    """The means of the last states, by transformers."""
    import torch
    import transformers

    for name, config in CASES.items():
        fields = {k: v for k, v in config.items() if k != "model_type"}
        kind = transformers.AutoConfig.for_model(
            config["model_type"], **fields, attn_implementation="eager"
        )
        model = transformers.AutoModel.from_config(kind).eval()
        tensors = {k: torch.from_numpy(v) for k, v in float_tensors(config).items()}
        model.load_state_dict(tensors, strict=True)
        with torch.no_grad():
            states = [model(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in IDS]
        yield name, [[round(value, 6) for value in state.tolist()] for state in states]


if __name__ == "__main__":
    main()
