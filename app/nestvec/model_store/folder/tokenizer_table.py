"""The fields of the files beside tokenizer.json.

Source: `PreTrainedTokenizerBase`, `PreTrainedTokenizerFast` and the classes of `tokenizer_classes` in transformers
4.57.6 and 5.24.0: every argument that they take or look up.
"""

from collections.abc import Mapping
from typing import Final

from nestvec.model_store.folder.claims import FieldTable, Refused
from nestvec.model_store.folder.tokenizer_classes import SPECIAL_TOKENS
from nestvec.model_store.folder.tokenizer_tokens import DECODER, LISTS

WAY_OUT: Final = 'a card with overrides.tokenizer = "plain" takes tokenizer.json as it is'
_SLOW: Final = "for tokenizers without a tokenizer.json only"
_SHOWN: Final = "how tokens are turned into text, or a chat is written"
_LOADING: Final = "where the files come from"
_AROUND: Final = "a text by itself has the same ids"
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("do_basic_tokenize", "do_split_on_punc", "never_split", "max_input_chars_per_word"),
            *("sp_model_kwargs", "keep_accents", "remove_space", "split_by_punct", "vocab_type"),
            *("vocab_file", "merges_file", "vocab", "merges", "extra_ids", "use_regex"),
            *("sp_model", "_spm_precompiled_charsmap", "unk_id", "add_dummy_prefix"),
        ),
        _SLOW,
    ),
    **dict.fromkeys(
        (
            *("clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors"),
            *("chat_control_tokens", "use_default_system_prompt"),
            *("grounded_generation_template", "tool_use_template", "response_schema"),
            *("response_template", "sanitize_control_tokens", "save_jinja_files"),
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
            *("trim_offsets", "verbose", "image_token", "audio_token", "video_token"),
        ),
        _SHOWN,
    ),
    "chat_template": "re-rankers read their pairs in it, and nothing else does",
    **dict.fromkeys(
        (
            *("name_or_path", "_name_or_path", "_commit_hash", "commit_message", "backend"),
            *("special_tokens_map_file", "tokenizer_file", "processor_class", "is_local"),
            *("__slow_tokenizer", "tokenizer_object", "tokenizer", "special_tokens"),
            *("device_map", "slow_tokenizer_class", "use_fast", "repo_id", "subfolder"),
            *("revision", "code_revision", "cache_dir", "proxies", "token", "use_auth_token"),
            *("local_files_only", "force_download", "resume_download", "trust_remote_code"),
            *("files_loaded", "tokenizer_type", "init_inputs", "_from_auto", "_from_pipeline"),
        ),
        _LOADING,
    ),
    **dict.fromkeys(
        (
            *("padding_side", "pad_to_multiple_of", "padding", "truncation"),
            *(
                "pad_token_type_id",
                "max_length",
                "max_target_length",
                "stride",
                "truncation_strategy",
            ),
            *("tokenizer_padding", "tokenizer_truncation", "_json_padding", "_json_truncation"),
            *("model_input_names", "pad_token_id", "cls_token_id", "sep_token_id"),
            *("bos_token_id", "eos_token_id", "unk_token_id", "mask_token_id"),
            *("is_split_into_words", "model_specific_special_tokens", "lang", "return_tensors"),
        ),
        _AROUND,
    ),
}
REFUSED: Final[Mapping[str, Refused]] = {
    "from_slow": Refused("the tokenizer would be converted anew, which is not done"),
    "gguf_file": Refused("the tokenizer of another file would be taken"),
    "mistral_format": Refused("the tokenizer of another file would be taken"),
    "post_processor": Refused("other tokens may stand around texts"),
    "use_source_tokenizer": Refused("another tokenizer would be taken"),
    "truncation_side": Refused(
        "long texts would lose their start; such a request says so itself", ("right",)
    ),
    "src_lang": Refused("texts would begin with a language"),
    "tgt_lang": Refused("texts would begin with a language"),
}
TOKENIZER_TABLE: Final = FieldTable(
    honoured=frozenset(
        {
            *("tokenizer_class", "auto_map", "do_lower_case", "strip_accents"),
            *("tokenize_chinese_chars", "add_bos_token", "add_eos_token", "add_prefix_space"),
            *("legacy", "split_special_tokens", "fix_mistral_regex", "model_max_length", "max_len"),
            *(DECODER, *SPECIAL_TOKENS, *LISTS),
        }
    ),
    without_effect=WITHOUT_EFFECT,
    refused=REFUSED,
    way_out=WAY_OUT,
)
SPECIAL_TOKENS_TABLE: Final = FieldTable(honoured=frozenset({*SPECIAL_TOKENS, *LISTS}))
