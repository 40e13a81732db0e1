"""What stands behind ColModernVBERT's encoder, and how it reads queries.

Source: `ColModernVBertProcessor` of transformers 5.24.0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.late_interaction import SuffixedQueries
from nestvec.export.vision_language.modernvbert_config import read_sizes
from nestvec.model_store.vision_language.patch_head import PatchHead, check_alone, patch_head
from nestvec.model_store.vision_language.prompts import PromptTokens
from nestvec.model_store.vision_language.tile_settings import END, said_prompt

SUFFIX_TOKENS: Final = 10


def read_colmodernvbert_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> PatchHead:
    """Read what stands behind ColModernVBERT's encoder, and how it reads queries.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        hidden_size: Columns of the encoder's states, H.
        modules: The kinds of the modules of its chain.

    Raises:
        FormatError: The module chain has more than the model and a norm, or the tokenizer lacks what queries need.
    """
    check_alone(folder, modules)
    tokens = PromptTokens.read(folder)
    late = SuffixedQueries(
        query_suffix=(tokens.id_of(END),) * SUFFIX_TOKENS, tokens_behind=tokens.tokens_behind()
    )
    prefix = said_prompt(folder, "query_prefix", "")
    vector_size = read_sizes(config).embedding_dim
    return patch_head(folder, config, hidden_size, vector_size, late, prefix)
