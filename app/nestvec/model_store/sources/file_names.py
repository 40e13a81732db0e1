"""Names of a folder's files that both fetching and reading know."""

from typing import Final

# sentence-transformers' settings of its Transformer module, in the order in which the library looks for them.
SETTINGS_FILES: Final = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# What sentence-transformers says of a whole model: prompts, the function that compares; PyLate, of its tokens.
MODEL_FILE: Final = "config_sentence_transformers.json"
# Settings of sentence-transformers' Router.
ROUTER_FILE: Final = "router_config.json"
# BGE-M3's layers for term weights and for token vectors, in files of their own.
M3_LAYERS: Final = ("sparse_linear", "colbert_linear")
# What transformers reads beside tokenizer.json.
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
CHAT_TEMPLATE_FILE: Final = "chat_template.jinja"
SPECIAL_TOKENS_FILE: Final = "special_tokens_map.json"
ADDED_TOKENS_FILE: Final = "added_tokens.json"
# What transformers reads of pictures; version 5 writes the second.
PREPROCESSOR_FILE: Final = "preprocessor_config.json"
PROCESSOR_FILE: Final = "processor_config.json"
TOKENIZER_FILES: Final = (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE)
