"""Code of a model's authors (`auto_map` of config.json): never run, so what it computes is known, or it is refused.

With `trust_remote_code`, as such models are published, transformers runs that code in place of its own class for the
`model_type`: its attention may be bidirectional where transformers' is causal, and nothing else in the folder says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES
from nestvec.export.families.gemma import Gemma
from nestvec.export.families.pre_norm import Decoder

FIELD: Final = "auto_map"
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class KnownCode:
    """What a class of authors' code computes.

    Attributes:
        families: Keys of `ARCHITECTURES` that compute the same.
        is_causal: Whether a token attends to itself and those before it only, where config.json does not say; None for
            the family's own habit.
    """

    families: tuple[str, ...]
    is_causal: bool | None = None


# By the class's name without its end (Model, Config, For…); with the file's name before it where transformers has a
# class of that name too.
KNOWN_CODE: Final[Mapping[str, KnownCode]] = {
    # jinaai/jina-bert-implementation (arXiv:2310.19923): BERT with ALiBi and a gated MLP.
    "JinaBert": KnownCode(("jina_bert",)),
    # jinaai/xlm-roberta-flash-implementation (arXiv:2409.10173): XLM-RoBERTa with rotary positions and adapters.
    "XLMRobertaFlash": KnownCode(("jina_embeddings_v3",)),
    "XLMRobertaLoRA": KnownCode(("jina_embeddings_v3",)),
    "modeling_xlm_roberta.XLMRoberta": KnownCode(("jina_embeddings_v3",)),
    # jinaai/jina-clip-implementation (arXiv:2405.20204): two towers.
    "JinaCLIP": KnownCode(("jina_clip",)),
    # nomic-ai/nomic-bert-2048 (arXiv:2402.01613).
    "NomicBert": KnownCode(("nomic_bert",)),
    # Alibaba-NLP/new-impl (arXiv:2407.19669), and Snowflake's copy of it for arctic-embed-m-v2.0.
    "New": KnownCode(("gte",)),
    "Gte": KnownCode(("gte",)),
    # nvidia/NV-Embed-v1 and -v2 (arXiv:2405.17428): a bidirectional Mistral and latent attention.
    "NVEmbed": KnownCode(("nvembed",)),
    # nvidia/llama-embed-nemotron-8b, llama-nemotron-embed and -rerank: NeMo's Llama in which all tokens see all.
    "LlamaBidirectional": KnownCode(("llama_bidirec",)),
    # perplexity-ai/pplx-embed-v1: a Qwen3 in which all tokens see all.
    "PPLXQwen3": KnownCode(("bidirectional_pplx_qwen3",)),
    # EuroBERT (arXiv:2503.05500): a bidirectional Llama.
    "EuroBert": KnownCode(("eurobert",)),
    # Alibaba-NLP/gte-Qwen2-*, and models made from them (NovaSearch/stella_en_1.5B_v5, inf-retriever): a Qwen2 whose
    # `is_causal` is False by default (commit 2c527fb of gte-Qwen2-1.5B-instruct; pull request 762 of
    # huggingface/text-embeddings-inference).
    "modeling_qwen.Qwen2": KnownCode(("qwen2",), is_causal=False),
}
# Code of such a repository shares names with known code and computes otherwise: Jina's norms of queries and keys.
OTHER_REPOSITORIES: Final = ("jinaai/jina-bert-v2-qk-post-norm",)
_CLASS_END: Final = re.compile(r"(?<=.)(Model|Config|For[A-Z]\w*)$")


def with_code(
    config: Mapping[str, Any], architecture: str, overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a config.json with what the authors' code or the card says of its attention, as `is_causal`.

    Args:
        config: Content of config.json.
        architecture: A key of `ARCHITECTURES`.
        overrides: From a model card: `code = "plain"` for code that computes what transformers' own class does, and
            `is_causal`.

    Raises:
        FormatError: The code is not known, or `is_causal` is not for this family; names the field and the class.
    """
    if "is_causal" in overrides:
        return _with_attention(config, architecture, is_causal=bool(overrides["is_causal"]))
    classes = _classes(config)
    if overrides.get("code") == PLAIN or not classes:
        return config
    known = [_known(name, architecture) for name in classes]
    says = {code.is_causal for code in known if code.is_causal is not None}
    if says and config.get("is_causal") is None:
        return {**config, "is_causal": says.pop()}
    return config


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes of the model and of its configuration, as `auto_map` names them, without those of a tokenizer."""
    auto_map = config.get(FIELD)
    if auto_map is None:
        return ()
    if not isinstance(auto_map, dict) or not all(
        isinstance(name, str) for name in auto_map.values() if not isinstance(name, list)
    ):
        raise FormatError(f"config.json: '{FIELD}' must map names to classes")
    return tuple(
        str(name)
        for auto_class, name in auto_map.items()
        if auto_class == "AutoConfig" or auto_class.startswith("AutoModel")
    )


def _known(name: str, architecture: str) -> KnownCode:
    """Find what a class computes, by `repository--file.Class`.

    Raises:
        FormatError: It is not known, or is of another family.
    """
    repository, _, path = name.rpartition("--")
    file, _, last = path.rpartition(".")
    stem = _CLASS_END.sub("", last)
    code = KNOWN_CODE.get(f"{file}.{stem}", KNOWN_CODE.get(stem))
    if code is None or architecture not in code.families or repository in OTHER_REPOSITORIES:
        raise FormatError(
            f"config.json: '{FIELD}' names the authors' own code {name[:100]}, which is never run and may compute "
            f"otherwise than '{architecture}'; if you know that it does not, write a card with overrides.code = "
            f"'{PLAIN}', or with overrides.is_causal = false (or true) if only its attention differs"
        )
    return code


def _with_attention(
    config: Mapping[str, Any], architecture: str, *, is_causal: bool
) -> Mapping[str, Any]:
    """Return a config.json that says how tokens attend, in the family's own field.

    Raises:
        FormatError: The family has one kind of attention only.
    """
    family = ARCHITECTURES.get(architecture)
    if isinstance(family, Gemma):
        return {**config, "use_bidirectional_attention": not is_causal}
    if isinstance(family, Decoder):
        return {**config, "is_causal": is_causal}
    raise FormatError(
        f"overrides.is_causal is for decoders; '{architecture}' has one kind of attention only"
    )
