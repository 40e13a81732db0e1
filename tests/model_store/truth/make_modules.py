"""Folders of sentence-transformers' own files, and what the library makes of them: `expected_modules.json`.

The folders need numpy only. The expectations are made anew by a venv that has torch and sentence-transformers:
`python tests/model_store/truth/make_modules.py`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.support.tiny import CONFIG, bert_weights, write_json, write_tokenizer  # noqa: E402

SEED: Final = 31
WIDTH: Final = CONFIG["hidden_size"]
OLD: Final = "sentence_transformers.models"
NEW: Final = "sentence_transformers.sentence_transformer.modules"
BASE: Final = "sentence_transformers.base.modules"
TEXTS: Final = [
    "alpha",
    "the red and the blue : gamma",
    "one two three four of a delta : beta the green one and a passage of query two",
]
PAIRS: Final = [["alpha beta", "the green one"], ["query", "a delta of two and three and four"]]
TANH: Final = "torch.nn.modules.activation.Tanh"
PLAIN: Final = (("", "Transformer"), ("1_Pooling", "Pooling"))


@dataclass(frozen=True)
class ModuleCase:
    """A folder, and how it is refused; or sentence-transformers says what it gives.

    Attributes:
        chain: Path and type of each module, `OLD` before a type without a package; None for no modules.json.
        files: Content by name of further JSON files, which stand for the plain ones.
        layers: Tensors' shapes by module folder.
        encoder: Folder of the encoder's files, relative to the model's.
        config: Further fields of config.json.
        refused: Parts of the error's message: the file, and the field; empty where the folder is served.
    """

    chain: Sequence[tuple[str, str]] | None = PLAIN
    files: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    encoder: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    @property
    def is_classifier(self) -> bool:
        """Whether it scores pairs."""
        return "architectures" in self.config


def pooled(config: Mapping[str, Any], *refused: str) -> ModuleCase:
    """Make a case of another `1_Pooling/config.json`."""
    named = ("1_Pooling/config.json", *refused) if refused else ()
    return ModuleCase(files={"1_Pooling/config.json": config}, refused=named)


def limited(name: str, settings: Mapping[str, Any], *refused: str) -> ModuleCase:
    """Make a case of another settings file of the Transformer."""
    named = (name, *refused) if refused else ()
    return ModuleCase(files={"sentence_bert_config.json": None, name: settings}, refused=named)


def dense(width: int, out: int) -> dict[str, Any]:
    """Return the settings of a Dense module."""
    return {"in_features": width, "out_features": out, "activation_function": TANH}


def layered(
    *layers: str, first: Mapping[str, Any] | None = None, refused: tuple[str, ...] = ()
) -> ModuleCase:
    """Make a case of layers behind the pooling: `Dense 32>8`, LayerNorm, Normalize, Dropout.

    Args:
        layers: The layers, `OLD` before a type without a package.
        first: Further settings of the first of them.
        refused: Parts of the error's message.
    """
    chain = list(PLAIN)
    settings: dict[str, Any] = {}
    tensors: dict[str, dict[str, tuple[int, ...]]] = {}
    width = WIDTH
    for number, layer in enumerate(layers, 2):
        kind, _, sizes = layer.partition(" ")
        path = f"{number}_{kind.rsplit('.', 1)[-1]}"
        more = first if first and number == len(PLAIN) else {}
        chain.append((path, kind))
        if kind.endswith("Dense"):
            width, out = map(int, sizes.split(">"))
            settings[f"{path}/config.json"] = {
                **dense(width, out),
                **more,
            }
            tensors[path] = {"linear.weight": (out, width), "linear.bias": (out,)}
            if "use_residual" in more and out != width:
                tensors[path] |= {"residual.weight": (out, width)}
            width = out
        elif kind.endswith("LayerNorm"):
            settings[f"{path}/config.json"] = {"dimension": width}
            tensors[path] = {"norm.weight": (width,), "norm.bias": (width,)}
        elif kind.endswith("Dropout"):
            settings[f"{path}/config.json"] = {"dropout": 0.2}
        elif more:
            settings[f"{path}/config.json"] = more
    return ModuleCase(chain, settings, tensors, refused=refused)


def chained(*chain: tuple[str, str], refused: tuple[str, ...] = ()) -> ModuleCase:
    """Make a case of another chain."""
    return ModuleCase(chain, refused=refused)


def weighed(
    settings: Mapping[str, Any],
    layers: int,
    *behind: tuple[str, str],
    has_states: bool = True,
    refused: tuple[str, ...] = (),
) -> ModuleCase:
    """Make a case of a WeightedLayerPooling.

    Args:
        settings: Its own, beside its sizes.
        layers: Layers that it has weights for.
        behind: Modules behind the pooling; a Dense gives 8 values.
        has_states: Whether config.json asks for the states of all layers.
        refused: Parts of the error's message.
    """
    sizes = {"embedding_dimension": WIDTH, "num_hidden_layers": 2}
    tensors = {path: {"linear.weight": (8, WIDTH), "linear.bias": (8,)} for path, _ in behind}
    return ModuleCase(
        (PLAIN[0], ("1_Weights", "WeightedLayerPooling"), PLAIN[1], *behind),
        {
            "1_Weights/config.json": {**sizes, **settings},
            **{f"{path}/config.json": dense(WIDTH, 8) for path, _ in behind},
        },
        {"1_Weights": {"layer_weights": (layers,)}, **tensors},
        config={"output_hidden_states": has_states},
        refused=refused,
    )


CLASSIFIER: Final = {"architectures": ["BertForSequenceClassification"], "num_labels": 1}
LEGACY: Final = (("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"))
SETTINGS: Final = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
FLAG: Final = "pooling_mode_{}_tokens"
CASES: Final[Mapping[str, ModuleCase]] = {
    **{
        f"length in sentence_{name}_config": limited(
            f"sentence_{name}_config.json", {"max_seq_length": 7}
        )
        for name in SETTINGS
    },
    "empty settings are passed over": ModuleCase(
        files={
            "sentence_bert_config.json": {},
            "sentence_roberta_config.json": {"max_seq_length": 7},
        }
    ),
    "settings: chat template": limited(
        "sentence_bert_config.json",
        {"modality_config": {"text": {}, "message": {}}},
        "modality_config",
    ),
    "settings: processing": limited(
        "sentence_roberta_config.json",
        {"processing_kwargs": {"text": {"max_length": 5}}},
        "processing_kwargs",
    ),
    "settings: task": limited(
        "sentence_bert_config.json", {"transformer_task": "text-generation"}, "transformer_task"
    ),
    "settings: tokenizer's arguments": limited(
        "sentence_bert_config.json", {"tokenizer_args": {"padding_side": "left"}}, "tokenizer_args"
    ),
    "settings: length of a wrong type": limited(
        "sentence_xlnet_config.json", {"max_seq_length": [7]}, "max_seq_length"
    ),
    "pooling: a list": pooled({"embedding_dimension": WIDTH, "pooling_mode": ["mean"]}),
    "pooling: two in a list": pooled(
        {"embedding_dimension": WIDTH, "pooling_mode": ["mean", "cls"]}
    ),
    "pooling: all in a list": pooled(
        {
            "embedding_dimension": WIDTH,
            "pooling_mode": [
                *("weightedmean", "max", "mean_sqrt_len_tokens", "lasttoken", "cls", "mean")
            ],
        }
    ),
    "pooling: flags in another order": pooled(
        {
            "word_embedding_dimension": WIDTH,
            FLAG.format("mean"): True,
            FLAG.format("max"): True,
            "pooling_mode_cls_token": True,
        }
    ),
    "pooling: no flag is true": pooled(
        {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False}
    ),
    "pooling: a size only": pooled({"word_embedding_dimension": WIDTH}),
    "pooling: the new form before the old": pooled(
        {"embedding_dimension": WIDTH, "pooling_mode": "max", "pooling_mode_cls_token": True}
    ),
    **{
        f"pooling: {mode} without the prompt": ModuleCase(
            files={
                "1_Pooling/config.json": {
                    "embedding_dimension": WIDTH,
                    "pooling_mode": mode,
                    "include_prompt": False,
                },
                "config_sentence_transformers.json": {
                    "prompts": {"query": "query : "},
                    "default_prompt_name": "query",
                },
            },
            refused=("1_Pooling/config.json", "include_prompt") if mode == "cls" else (),
        )
        for mode in ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    },
    "pooling: unknown in a list": pooled({"pooling_mode": ["cls", "odd"]}, "pooling_mode", "'odd'"),
    "pooling: an object": pooled({"pooling_mode": {"cls": 1}}, "pooling_mode"),
    "pooling: null": pooled({"pooling_mode": None}, "pooling_mode"),
    "pooling: nested lists": pooled({"pooling_mode": [["cls"]]}, "pooling_mode"),
    "pooling: an empty list": pooled({"pooling_mode": []}, "pooling_mode"),
    "pooling: a flag that is a number": pooled(
        {FLAG.format("mean"): 1}, "pooling_mode_mean_tokens"
    ),
    "pooling: include_prompt is a text": pooled(
        {"pooling_mode": "mean", "include_prompt": "no"}, "include_prompt"
    ),
    "layers: Dense": layered("Dense 32>8", "Normalize"),
    "layers: Normalize before Dense": layered("Normalize", "Dense 32>8"),
    "layers: Dropout": layered("Dropout", "Dense 32>8", "Dropout"),
    "layers: LayerNorm": layered("LayerNorm"),
    "layers: LayerNorm between": layered("Dense 32>12", "LayerNorm", "Normalize", "Dense 12>8"),
    "layers: residual": layered("Dense 32>32", first={"use_residual": True}),
    "layers: projected residual": layered("Dense 32>8", first={"use_residual": True}),
    "layers: new paths": layered(
        f"{NEW}.dropout.Dropout", f"{BASE}.dense.Dense 32>8", f"{BASE}.normalize.Normalize"
    ),
    "layers: another input": layered(
        "Dense 32>8",
        refused=("2_Dense/config.json", "module_input_name"),
        first={"module_input_name": "token_embeddings"},
    ),
    "layers: another output": layered(
        "Dense 32>1",
        refused=("2_Dense/config.json", "module_output_name"),
        first={"module_output_name": "scores"},
    ),
    "layers: tokens are normalized": layered(
        "Normalize",
        refused=("2_Normalize/config.json", "module_input_name"),
        first={"module_input_name": "token_embeddings"},
    ),
    "layers: another package's activation": layered(
        "Dense 32>8",
        refused=("2_Dense/config.json", "activation_function"),
        first={"activation_function": "own.modules.GELU"},
    ),
    "layers: sizes that do not fit": layered(
        "Dense 32>8", "Dense 9>4", refused=("3_Dense/config.json", "in_features")
    ),
    "two poolings and Dense": ModuleCase(
        (*PLAIN, ("2_Dense", "Dense")),
        {
            "1_Pooling/config.json": {
                "embedding_dimension": WIDTH,
                "pooling_mode": ["max", "lasttoken"],
            },
            "2_Dense/config.json": dense(2 * WIDTH, 8),
        },
        {"2_Dense": {"linear.weight": (8, 2 * WIDTH), "linear.bias": (8,)}},
    ),
    "legacy layout": ModuleCase(LEGACY, encoder="0_Transformer"),
    "legacy layout with its length": ModuleCase(
        LEGACY,
        {"0_Transformer/sentence_bert_config.json": {"max_seq_length": 7}},
        encoder="0_Transformer",
    ),
    "legacy layout without its encoder": ModuleCase(
        LEGACY, refused=("0_Transformer/config.json", "missing")
    ),
    "paths of version 5.4": chained(
        ("", f"{BASE}.transformer.Transformer"), ("1_Pooling", f"{NEW}.pooling.Pooling")
    ),
    "paths of packages": chained(
        ("", f"{NEW}.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")
    ),
    "another package's Transformer": chained(
        ("", "custom_st.Transformer"),
        PLAIN[1],
        refused=("modules.json", "type", "'custom_st.Transformer'", "overrides.code"),
    ),
    "another package's Pooling": chained(
        PLAIN[0],
        ("1_Pooling", "own.modules.Pooling"),
        refused=("modules.json", "own.modules.Pooling"),
    ),
    "a Router": chained(("", f"{BASE}.router.Router"), refused=("router_config.json", "missing")),
    "a Router of one route": ModuleCase(
        [("", f"{BASE}.router.Router"), ("2_Normalize", "Normalize")],
        {
            "router_config.json": {
                "types": {"": f"{OLD}.Transformer", "1_Pooling": f"{OLD}.Pooling"},
                "structure": {"text": ["", "1_Pooling"]},
                "parameters": {"route_mappings": {"(None, 'text')": "text"}},
            }
        },
    ),
    "a Router of two encoders": ModuleCase(
        [("", f"{BASE}.router.Router"), ("2_Normalize", "Normalize")],
        {
            "router_config.json": {
                "types": {
                    "query_0_StaticEmbedding": f"{OLD}.StaticEmbedding",
                    "": f"{OLD}.Transformer",
                    "1_Pooling": f"{OLD}.Pooling",
                },
                "structure": {
                    "query": ["query_0_StaticEmbedding"],
                    "document": ["", "1_Pooling"],
                },
                "parameters": {},
            }
        },
        refused=("modules.json", "Router", "chain of their own", "two models"),
    ),
    "a Router behind": chained(
        *PLAIN,
        ("2_Asym", "Asym"),
        refused=("modules.json", "type", "'Asym' is not supported"),
    ),
    "convolutions": chained(
        PLAIN[0], ("1_CNN", "CNN"), PLAIN[1], refused=("modules.json", "'CNN' is not supported")
    ),
    "a LogitScore without tokens": chained(
        PLAIN[0],
        ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
        refused=("1_LogitScore/config.json", "missing"),
    ),
    "layers weighed": weighed({"layer_start": 1}, 2),
    "layers weighed, the embeddings too": weighed({"layer_start": 0}, 3, ("2_Dense", "Dense")),
    "layers weighed of one": weighed({"layer_start": 1}, 2, has_states=False),
    "layers weighed that are not there": weighed(
        {"layer_start": 0},
        4,
        refused=("1_Weights/config.json", "layer_start", "4 weights do not fit"),
    ),
    "layers weighed behind": ModuleCase(
        (*PLAIN, ("2_Weights", "WeightedLayerPooling")), refused=("modules.json", "expected")
    ),
    "a Transformer alone": chained(PLAIN[0], refused=("modules.json", "Pooling")),
    "a classifier of version 5.4": ModuleCase(
        [("", f"{BASE}.transformer.Transformer")],
        {
            "sentence_bert_config.json": {
                "transformer_task": "sequence-classification",
                "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
                "module_output_name": "scores",
            },
            "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
        },
        config=CLASSIFIER,
    ),
    "a classifier that says its activation": ModuleCase(
        [("", "Transformer")],
        {
            "sentence_bert_config.json": {"transformer_task": "sequence-classification"},
            "config_sentence_transformers.json": {
                "model_type": "CrossEncoder",
                "activation_fn": "torch.nn.modules.linear.Identity",
            },
        },
        config=CLASSIFIER,
    ),
}


def write_folder(folder: Path, case: ModuleCase) -> Path:
    """Write a case's folder: a tiny BERT with the case's own files."""
    encoder = folder / case.encoder
    whole = {**CONFIG, **case.config}
    write_json(encoder / "config.json", whole)
    write_tokenizer(encoder / "tokenizer.json")
    tokenizer = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}
    write_json(encoder / "tokenizer_config.json", tokenizer)
    random = np.random.default_rng(SEED)
    weights = bert_weights(whole, SEED)
    if case.is_classifier:
        sizes = {"bert.pooler.dense": (WIDTH, WIDTH), "classifier": (1, WIDTH)}
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
        weights |= _tensors(random, {f"{n}.weight": shape for n, shape in sizes.items()})
        weights |= _tensors(random, {f"{n}.bias": shape[:1] for n, shape in sizes.items()})
    save_file(weights, encoder / "model.safetensors")
    files: dict[str, Any] = {
        "1_Pooling/config.json": {"embedding_dimension": WIDTH, "pooling_mode": "mean"},
        "sentence_bert_config.json": {"max_seq_length": 24},
        **case.files,
    }
    if case.chain is not None:
        files["modules.json"] = [
            {
                "idx": number,
                "name": str(number),
                "path": path,
                "type": kind if "." in kind else f"{OLD}.{kind}",
            }
            for number, (path, kind) in enumerate(case.chain)
        ]
    for name, content in files.items():
        if content is not None:
            write_json(folder / name, content)
    for name, shapes in case.layers.items():
        save_file(_tensors(random, shapes), folder / name / "model.safetensors")
    return folder


def _tensors(random: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Draw tensors of these shapes."""
    return {
        name: (0.4 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def ask(library: Any, _name: str, case: ModuleCase, folder: str) -> Any:
    """Return what the library makes of a folder: vectors of the texts, or scores of the pairs."""
    if case.is_classifier:
        rows = library.CrossEncoder(folder, device="cpu").predict(PAIRS)[:, None]
    else:
        model = library.SentenceTransformer(folder, device="cpu")
        rows = model.encode(TEXTS, normalize_embeddings=True)
    return [[float(f"{value:.6g}") for value in row] for row in rows.tolist()]


if __name__ == "__main__":
    from tests.model_store.truth.library import write_expected

    write_expected(HERE / "expected_modules.json", CASES, write_folder, ask)
