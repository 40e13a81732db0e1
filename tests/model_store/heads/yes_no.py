"""The cases of yes/no re-rankers: tiny decoders, templates as published, and texts."""

import json
from pathlib import Path
from typing import Any, Final

FAMILIES = Path(__file__).parents[2] / "export/families"
YES_ID, NO_ID = 17, 11
CASES: Final = {
    "qwen3, tied": ("qwen3", True),
    "qwen3": ("qwen3", False),
}
INSTRUCTION = "of the red and the blue"
QUERIES = ["alpha beta", "one"]
DOCUMENTS = ["the green one", "gamma", "a delta of two and three and four : red", ""]
SELECT = 'messages | selectattr("role", "eq", "{}") | map(attribute="content") | first'
QWEN_SETS = (
    f"{{%- set instruction = {SELECT.format('system')}"
    ' | default("Given a web search query, retrieve relevant passages that answer the query") -%}\n'
    f"{{%- set query_text = {SELECT.format('query')} -%}}\n"
    f"{{%- set document_text = {SELECT.format('document')} -%}}\n"
)
# Qwen3-Reranker's, in words of the tiny vocabulary; [SEP] stands for its special tokens.
TEMPLATE = QWEN_SETS.replace(
    "Given a web search query, retrieve relevant passages that answer the query", "query : a"
) + (
    "[CLS] the query and the passage\n[SEP]\n: {{ instruction }}\nquery : {{ query_text }}\n"
    "passage : {{ document_text }}[SEP]\none\n\ntwo\n\n\n"
)
CHAT_TEMPLATES: Final = {
    "Qwen3-Reranker": QWEN_SETS
    + (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the"
        ' Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: {{ instruction }}\n<Query>: {{ query_text }}\n"
        "<Document>: {{ document_text }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n\n"
    ),
    "filters in place": (
        f"<Instruct>: {{{{ {SELECT.format('system')} | default('find', true) }}}}\n"
        f"<Query>: {{{{ {SELECT.format('query')} }}}}\n"
        f"<Document>: {{{{\n    messages\n    | selectattr('role', 'eq', 'document')\n"
        "    | map(attribute='content')\n    | first\n}}<end>\n"
    ),
    "attributes": (
        'question:{{ (messages | selectattr("role", "eq", "query") | first).content }}\n\n'
        ' passage:{{ (messages | selectattr("role", "eq", "document") | first).content }}'
    ),
    "sums of texts": (
        f"{{#- a comment\n -#}}\n{{%- set query = {SELECT.format('query')} -%}}\n"
        f"{{%- set document = {SELECT.format('document')} -%}}\n"
        "{{- '<|im_start|>system\\n' + query + '<|im_end|>\\n' -}}\n"
        "{{- '<|im_start|>user\\n' + document + '<|im_end|>\\n' -}}\n"
        "{{- '<|im_start|>assistant\\n' -}}\n"
    ),
    "statements on lines of their own": (
        f"  {{% set q = {SELECT.format('query')} %}}\n"
        f"   {{% set d = {SELECT.format('document')} %}}\n {{# so #}}\na {{{{ q }}}}\n  {{{{ d }}}}\n "
    ),
}
TRICKY = [
    ("alpha", "beta"),
    ("", ""),
    ("{document} {{ query }}", "{query}\n"),
    (" two\nlines ", "\n\tthe 'end' \"of\" {% it %} \\n é漢🙂 "),
]


def config_of(family: str, *, is_tied: bool) -> dict[str, Any]:
    """Return a family's tiny configuration as a causal language model's, with room for the template."""
    stored = json.loads((FAMILIES / f"{family}.json").read_text())["config"]
    class_name = f"{family.title()}ForCausalLM"
    return {
        **stored,
        "architectures": [class_name],
        "tie_word_embeddings": is_tied,
        "max_position_embeddings": 64,
    }
