"""The fields of config.json that the libraries read or write, beside those that a family's own reader takes.

Source: the configuration classes of transformers 4.57.6 and 5.24.0 for the families that the exporter knows, with their
base class; the authors' own code of NomicBERT, GTE, Jina and NV-Embed.
"""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.export.config.quantization import FIELDS as QUANTIZATION_FIELDS
from nestvec.model_store.folder.claims import FieldTable, Refused

# What other readers than the family's take.
READ_ELSEWHERE: Final = frozenset(
    {
        *("model_type", "architectures", "auto_map", "is_causal", "transformers_version"),
        *("tokenizer_class", *QUANTIZATION_FIELDS),
        # Heads: classifiers, SPLADE, late interaction.
        *("id2label", "num_labels", "problem_type", "sentence_transformers", "type_vocab_size"),
        *("sbert_ce_default_activation_function", "classifier_pooling", "classifier_activation"),
        *("classifier_bias", "pooler_hidden_act", "layer_norm_eps", "norm_eps", "vocab_size"),
    }
)
# What decides on a family, or is taken when its graph is built.
READ_BY_FAMILY: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("clip", "siglip", "siglip2"),
        frozenset({"text_config", "text_config_dict", "vision_config", "vision_config_dict"}),
    ),
    "colmodernvbert": frozenset({"vlm_config", "text_config", "vision_config"}),
    "colpali": frozenset({"vlm_config", "embedding_dim"}),
    "colqwen2": frozenset({"vlm_config", "embedding_dim"}),
    "deberta-v2": frozenset(
        {
            *("relative_attention", "pos_att_type", "norm_rel_ebd", "share_att_key"),
            *("max_relative_positions", "position_buckets", "max_position_embeddings"),
        }
    ),
    "ernie": frozenset({"task_type_vocab_size"}),
    "jina_bert": frozenset({"position_embedding_type"}),
    "jina_clip": frozenset(
        {
            *("text_config", "vision_config", "add_projections", "projection_dim"),
            *("matryoshka_dimensions", "truncate_dim"),
        }
    ),
    "jina_embeddings_v3": frozenset({"position_embedding_type"}),
    "nvembed": frozenset({"latent_attention_config", "text_config"}),
    "qwen3_vl": frozenset({"text_config", "vision_config"}),
}
OWN_GRAPH_REASON: Final = "the folder's own graph is served as it is"
_TRAINING: Final = "for training only"
_HOW: Final = "how a model is computed, not what"
_GENERATION: Final = "for generating text, or in a head that is not served"
_NAME: Final = "a name, or which token is which: ids are the tokenizer's"
_WEIGHTS: Final = "the weights themselves say it"
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob"),
            *("classifier_dropout", "pooler_dropout", "dropout", "qa_dropout", "dropout_rate"),
            *("seq_classif_dropout", "summary_last_dropout", "embedding_dropout", "mlp_dropout"),
            *("resid_pdrop", "embd_pdrop", "attn_pdrop", "moe_resid_pdrop", "lora_dropout_p"),
            *("initializer_range", "initializer_factor", "initializer_cutoff_factor"),
            *(
                "gradient_checkpointing",
                "router_aux_loss_coef",
                "use_xentropy",
                "sparse_prediction",
            ),
            *("sparse_pred_ignore_index", "repad_logits_with_grad", "dense_seq_output"),
            *("layer_norm_training", "finetuning_task", "lora_main_params_trainable"),
            *("classifier_dropout_prob", "hidden_dropout", "activation_dropout", "init_std"),
            *("encoder_layerdrop", "decoder_layerdrop"),
        ),
        _TRAINING,
    ),
    **dict.fromkeys(
        (
            *("use_cache", "torch_dtype", "dtype", "attn_implementation", "_attn_implementation"),
            *("attn_implementation_internal", "_attn_implementation_internal", "use_flash_attn"),
            *("_attn_implementation_autoset", "use_flash_attention", "unpad_inputs"),
            *("use_memory_efficient_attention", "fused_bias_fc", "fused_dropout_add_ln"),
            *("reference_compile", "deterministic_flash_attn", "deterministic_fa"),
            *("chunk_size_feed_forward", "pretraining_tp", "torchscript", "use_bfloat16"),
            *("reorder_and_upcast_attn", "experts_implementation_internal", "compile"),
            *("_experts_implementation_internal", "post_init_done", "return_dict"),
            *("output_attentions", "output_hidden_states", "output_scores", "output_past"),
            *("pad_vocab_size_multiple", "moe_impl", "keep_in_fp32_modules", "slow_but_exact"),
        ),
        _HOW,
    ),
    **dict.fromkeys(
        (
            *("bad_words_ids", "begin_suppress_tokens", "cross_attention_hidden_size"),
            *("decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping"),
            *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty"),
            *("forced_bos_token_id", "forced_eos_token_id", "is_encoder_decoder"),
            *("length_penalty", "max_length", "min_length", "no_repeat_ngram_size"),
            *("num_beam_groups", "num_beams", "num_return_sequences", "prefix"),
            *("remove_invalid_values", "repetition_penalty", "return_dict_in_generate"),
            *("suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss"),
            *("tie_encoder_decoder", "tie_word_embeddings", "top_k", "top_p", "typical_p"),
            *("decoder_bias", "final_logit_softcapping", "legacy", "num_decoder_layers"),
            *("scale_decoder_outputs", "summary_activation", "summary_first_dropout"),
            *("summary_proj_to_labels", "summary_type", "summary_use_proj", "generator_size"),
            *("generator_hidden_size", "cache_implementation", "use_mems_eval"),
            *("decoder_layers", "decoder_ffn_dim", "decoder_attention_heads"),
            # BERT's pooler, and that of other families: no pooling of ours takes it.
            *("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_type"),
            *("pooler_num_fc_layers", "pooler_size_per_head", "pooler_hidden_size"),
            *("add_pooling_layer", "emb_pooler", "clf_pooling"),
        ),
        _GENERATION,
    ),
    **dict.fromkeys(
        (
            *("_name_or_path", "name_or_path", "_commit_hash", "commit_hash", "model_name"),
            *("label2id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"),
            *("mask_token_id", "pad_token_id", "unk_token_id", "language", "license"),
            *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
        ),
        _NAME,
    ),
    **dict.fromkeys(
        ("sinusoidal_pos_embds", "is_gated_act", "dense_act_fn", "norm_bias"),
        _WEIGHTS,
    ),
    "parallel_block_tied_norm": "says something of parallel blocks only",
    "original_max_position_embeddings": "says something of stretched positions only",
    "max_trained_positions": "says something of stretched positions only, which are refused",
    "logn_attention_clip1": "says something of logn_attention_scale only, which is refused",
    **dict.fromkeys(
        (
            *("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq"),
            *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
            *("sliding_window_pattern", "_sliding_window_pattern", "position_embedding_type"),
        ),
        "the family has no such thing, or another field stands for it",
    ),
    "lora_adaptations": "which adapter is merged is said by the settings",
    "lora_rank": "which adapter is merged is said by the settings",
    "lora_alpha": "which adapter is merged is said by the settings",
    "load_trained_adapters": "which adapter is merged is said by the settings",
    "task_instructions": "prompts are those of config_sentence_transformers.json, or a card's",
    "matryoshka_dimensions": "a request says how many dimensions it wants",
}
_BIAS: Final = Refused("weights may have biases that the family's graph has not")
_EXPERTS: Final = Refused("a mixture of experts is not supported", (0, False, None))
REFUSED: Final[Mapping[str, Refused]] = {
    "pruned_heads": Refused("attention heads would be left out", ({}, [])),
    "add_cross_attention": Refused("attention to another model's states is not supported"),
    "is_decoder": Refused("a decoder's attention is not supported in this family"),
    "parallel_block": Refused("blocks side by side are not supported"),
    "scale_attn_weights": Refused("scores of attention are always scaled", (True,)),
    "scale_attn_by_inverse_layer_idx": Refused("another scale of attention is not supported"),
    "rotary_emb_scale_base": Refused("scaled rotary positions are not supported", (None,)),
    "num_experts": _EXPERTS,
    "num_shared_experts": _EXPERTS,
    "moe_every_n_layers": _EXPERTS,
    "truncate_dim": Refused("vectors would be cut; a request's `dimensions` does it", (None,)),
}
# Decoders that have biases only where transformers' configuration says so.
WITH_BIAS_FIELDS: Final = (
    *("llama", "llama_bidirec", "mistral", "qwen3", "bidirectional_pplx_qwen3", "eurobert"),
    *("olmo2", "gemma", "gemma2"),
)
# What one family's class has beside those of the others.
OWN_REFUSED: Final[Mapping[str, Mapping[str, Refused]]] = {
    "bidirectional_pplx_qwen3": {
        "use_bidirectional_attention": Refused("attention is bidirectional", (True,))
    },
}
OWN_WITHOUT_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "clip": {"logit_scale_init_value": "where training began: the weights have where it ended"},
    "gemma2": {"hidden_act": "hidden_activation stands for it"},
    "jina_clip": {
        "logit_scale_init_value": "where training began: cosines have no scale",
        "use_text_flash_attn": _HOW,
        "use_vision_xformers": _HOW,
    },
    "llama_bidirec": {
        "pooling": "says it of classifiers only; 1_Pooling/config.json or a card says it of others",
        "temperature": "scores of classifiers are divided by it; others have none",
    },
}
_T5: Final = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
# Other names that a configuration class has for its fields, which must agree.
ALIASES: Final[Mapping[str, Mapping[str, str]]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    },
    "m2m_100": {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    "bloom": {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    "mt5": _T5,
    "t5": _T5,
}
ACTIVATIONS: Final[Mapping[str, tuple[str, ...]]] = {"nomic_bert": ("silu", "swish", "swiglu")}
DECODERS: Final = (*WITH_BIAS_FIELDS, "qwen2", "gemma3_text", "phi3", "bloom")


def config_table(architecture: str, config: Mapping[str, Any], asked: frozenset[str]) -> FieldTable:
    """Return the fields of a family's config.json.

    Args:
        architecture: A key of `ARCHITECTURES`.
        config: Its content.
        asked: Those that the family's reader has asked for.
    """
    refused = dict(REFUSED)
    without_effect = dict(WITHOUT_EFFECT)
    for name in ("attention_bias", "mlp_bias"):
        if architecture in WITH_BIAS_FIELDS:
            refused[name] = _BIAS
        else:
            without_effect[name] = _WEIGHTS
    if architecture in DECODERS:
        del refused["is_decoder"]
        without_effect["is_decoder"] = "this family has one kind of attention"
    for alias, name in ALIASES.get(architecture, {}).items():
        if architecture == "bloom" and name not in config:
            continue  # either name does
        refused[alias] = Refused(f"differs from '{name}', which is read", (config.get(name),))
    if architecture in ACTIVATIONS:
        known = ACTIVATIONS[architecture]
        refused["hidden_act"] = Refused(f"only {known[0]} is supported", known)
    if architecture == "nomic_bert":
        for name in ("num_experts", "moe_every_n_layers"):  # its reader takes them
            del refused[name]
        refused["head_dim"] = Refused(
            "must be hidden_size / num_attention_heads", _head_dim(config)
        )
    refused |= OWN_REFUSED.get(architecture, {})
    without_effect |= OWN_WITHOUT_EFFECT.get(architecture, {})
    table = FieldTable(READ_ELSEWHERE, without_effect, refused)
    return table.with_honoured({*asked, *READ_BY_FAMILY.get(architecture, ())})


def _head_dim(config: Mapping[str, Any]) -> tuple[object, ...]:
    size, heads = config.get("hidden_size"), config.get("num_attention_heads")
    fits = isinstance(size, int) and isinstance(heads, int) and heads > 0
    return (size // heads,) if fits else ()  # type: ignore[operator]  # both are integers
