"""What ColQwen2's folder says: the prompts in which it reads queries and pictures, and how pictures are resized.

Source: `ColQwen2Processor` of transformers 4.57 and 5.24, and of colpali-engine. Behind a query version 5 has an end of
line more, which neither the authors' code nor version 4 has, and here is none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.late_interaction import SuffixedQueries
from nestvec.errors import FormatError
from nestvec.export.vision_language import qwen2_config
from nestvec.export.vision_language.decoder import COLQWEN2
from nestvec.export.vision_language.vision_graph import COLQWEN2_TOWER
from nestvec.model_store.vision_language.patch_head import PatchHead, check_alone, patch_head
from nestvec.model_store.vision_language.picture_settings import (
    PrefixSettings,
    read_qwen_pictures,
)
from nestvec.model_store.vision_language.prompts import (
    PromptTokens,
    processor_prompt,
    tokenizer_token,
)

IMAGE_TOKEN: Final = "<|image_pad|>"  # noqa: S105 - of a vocabulary
IMAGE_TOKEN_ID: Final = 151655  # where config.json does not say
QUERY_PREFIX: Final = "Query: "
PICTURE_PROMPT: Final = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
    "Describe the image.<|im_end|><|endoftext|>"
)
SUFFIX_TOKENS: Final = 10


def read_colqwen2_pictures(folder: Path, config: Mapping[str, Any]) -> PrefixSettings | None:
    """Read how ColQwen2 takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """

    def around() -> tuple[tuple[int, ...], tuple[int, ...]]:
        tokens = PromptTokens.read(folder)
        token = tokenizer_token(folder, "image_token", IMAGE_TOKEN)
        said = qwen2_config.vlm_fields(config).get("image_token_id", IMAGE_TOKEN_ID)
        if tokens.id_of(token) != said:
            raise FormatError(
                f"config.json: 'image_token_id' is {said!r}, and {token[:40]} is {tokens.id_of(token)}"
            )
        return tokens.around(
            processor_prompt(folder, "visual_prompt_prefix", PICTURE_PROMPT), token
        )

    return read_qwen_pictures(folder, config, COLQWEN2, COLQWEN2_TOWER, around)


def read_colqwen2_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> PatchHead:
    """Read what stands behind ColQwen2's decoder, and how it reads queries.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        hidden_size: Columns of the decoder's states, H.
        modules: The kinds of the modules of its chain.

    Raises:
        FormatError: The module chain has more than the model and a norm, or the tokenizer lacks what queries need.
    """
    check_alone(folder, modules)
    tokens = PromptTokens.read(folder)
    padding = tokens.id_of(tokenizer_token(folder, "pad_token"))
    late = SuffixedQueries(
        query_suffix=(padding,) * SUFFIX_TOKENS, tokens_behind=tokens.tokens_behind()
    )
    prefix = processor_prompt(folder, "query_prefix", QUERY_PREFIX)
    vector_size = qwen2_config.embedding_dim(config)
    return patch_head(folder, config, hidden_size, vector_size, late, prefix)
