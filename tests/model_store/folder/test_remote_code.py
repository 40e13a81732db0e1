"""Code of models' authors: what widely used models name in `auto_map` is known, anything else is refused by name."""

from typing import Any

import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.remote_code import with_code

# `auto_map` as the published config.json of each has it, by the family that we run for it.
PUBLISHED = {
    "jina-embeddings-v2": (
        "jina_bert",
        {
            "AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig",
            "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
            "AutoModelForMaskedLM": "jinaai/jina-bert-implementation--modeling_bert.JinaBertForMaskedLM",
            "AutoModelForSequenceClassification": (
                "jinaai/jina-bert-implementation--modeling_bert.JinaBertForSequenceClassification"
            ),
        },
    ),
    "nomic-embed-text-v1.5": (
        "nomic_bert",
        {
            "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
            "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
        },
    ),
    "gte-multilingual-base": (
        "gte",
        {
            "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
            "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
            "AutoModelForMaskedLM": "Alibaba-NLP/new-impl--modeling.NewForMaskedLM",
            "AutoModelForSequenceClassification": (
                "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification"
            ),
        },
    ),
    "snowflake-arctic-embed-m-v2.0": (
        "gte",
        {
            "AutoConfig": "configuration_hf_alibaba_nlp_gte.GteConfig",
            "AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel",
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_code_of_encoders_changes_nothing(name: str) -> None:
    """Their families compute what the code does, so config.json stays as it is."""
    architecture, auto_map = PUBLISHED[name]
    config: dict[str, Any] = {"auto_map": auto_map, "hidden_size": 32}
    assert with_code(config, architecture, {}) == config


def test_the_code_of_gte_qwen2_is_bidirectional() -> None:
    """Its class bears transformers' name and attends to both sides; config.json may still say otherwise."""
    config: dict[str, Any] = {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}
    assert with_code(config, "qwen2", {})["is_causal"] is False
    assert with_code({**config, "is_causal": True}, "qwen2", {})["is_causal"] is True


def test_unknown_code_is_refused_unless_a_card_says_what_it_computes() -> None:
    """The message names file, field, class and the way out."""
    config: dict[str, Any] = {"auto_map": {"AutoModel": "modeling_mine.MyModel"}}
    with pytest.raises(FormatError, match=r"config\.json: 'auto_map'.*MyModel.*overrides\.code"):
        with_code(config, "qwen2", {})
    assert with_code(config, "qwen2", {"code": "plain"}) == config
    assert with_code(config, "qwen2", {"is_causal": False})["is_causal"] is False
    with pytest.raises(FormatError, match=r"overrides\.is_causal is for decoders"):
        with_code(config, "bert", {"is_causal": False})
