"""What ColPali's folder says: the prompts in which it reads queries and pictures, and how pictures are resized.

A query is "<bos>Question: …", ten tokens of padding, which are read, and a line's end; a picture its patches, then
"<bos>Describe the image." and a line's end. A document of text is "<bos>…" alone, as the authors' code has it, which
transformers' has not.

Source: `ColPaliProcessor` of transformers 4.57 and 5.24, and of colpali-engine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.pictures.pages import PagePrefix
from nestvec.engine.text.late_interaction import SuffixedQueries
from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.errors import FormatError
from nestvec.export.two_towers.config import VisionSizes
from nestvec.export.vision_language.colpali import COLPALI_DECODER, export_page_graph
from nestvec.export.vision_language.colpali_config import (
    COLPALI,
    embedding_dim,
    image_token_id,
    read_vision_sizes,
)
from nestvec.model_store.sources.tokenizer_parts import template
from nestvec.model_store.two_towers.picture_settings import (
    CLASSES,
    PictureSettings,
    check_class,
    processor_fields,
    read_processor,
    work_of,
)
from nestvec.model_store.vision_language.patch_head import PatchHead, check_alone, patch_head
from nestvec.model_store.vision_language.prompts import (
    PromptTokens,
    processor_prompt,
    tokenizer_token,
)

FAMILY: Final = "siglip"  # whose image processor it is
PROCESSORS: Final = tuple(name for name, family in CLASSES.items() if family == FAMILY)
QUERY_PREFIX: Final = "Question: "
PICTURE_PROMPT: Final = "Describe the image."
IMAGE_TOKEN: Final = "<image>"  # noqa: S105 - of a vocabulary
BOS: Final = "<bos>"
PAD: Final = "<pad>"
LINE_END: Final = "\n"
SUFFIX_TOKENS: Final = 10
TOKENS_FIELD: Final = "image_seq_length"


@dataclass(frozen=True, slots=True)
class PageSettings(PictureSettings):
    """How ColPali takes pictures."""

    tower: PagePrefix

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures, as `PictureSettings.export` does."""
        export_page_graph(folder, config, self.scale, path, on_tensor)


def read_colpali_pictures(folder: Path, config: Mapping[str, Any]) -> PageSettings | None:
    """Read how ColPali takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    processor = read_processor(folder, FAMILY)
    if fields is None or processor is None:
        return None
    check_class(path, fields.get("image_processor_type"), PROCESSORS)
    sizes = read_vision_sizes(config)
    said = fields.get(TOKENS_FIELD)
    if said is not None and said != sizes.tokens:
        raise FormatError(
            f"{path}: {TOKENS_FIELD} is {said!r}, and pictures have {sizes.tokens} patches by config.json"
        )
    tokens = PromptTokens.read(folder)
    number, given = tokens.id_of(IMAGE_TOKEN), image_token_id(config)
    if given is not None and given != number:
        raise FormatError(
            f"{folder}/config.json: 'image_token_index' is {given!r}, and {IMAGE_TOKEN} is {number}"
        )
    prompt = processor_prompt(folder, "visual_prompt_prefix", PICTURE_PROMPT, may_be_empty=True)
    if IMAGE_TOKEN in prompt:
        raise FormatError(
            f"{folder}: visual_prompt_prefix: {IMAGE_TOKEN} stands before it already, once for each patch"
        )
    bos = tokenizer_token(folder, "bos_token", BOS)
    tokens.id_of(bos)
    costs = _costs(sizes, config)
    tower = PagePrefix(
        square=processor.tower(sizes, costs["token_cost"]),
        patch_size=sizes.patch_size,
        behind_ids=tokens.ids(f"{bos}{prompt}{LINE_END}"),
        **costs,
    )
    return PageSettings(tower, processor.scale())


def read_colpali_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> PatchHead:
    """Read what stands behind ColPali's decoder, and how it reads queries.

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
    padding = tokenizer_token(folder, "pad_token", PAD)
    tokens.id_of(padding)
    late = SuffixedQueries(query_suffix=tokens.ids(padding * SUFFIX_TOKENS + LINE_END))
    prefix = processor_prompt(folder, "query_prefix", QUERY_PREFIX, may_be_empty=True)
    return patch_head(folder, config, hidden_size, embedding_dim(config), late, prefix)


def with_bos(
    changes: TokenizerChanges, folder: Path, config: Mapping[str, Any]
) -> TokenizerChanges:
    """Return changes of a tokenizer that put ColPali's first token before each text, and nothing else around it.

    Its processor writes that token itself, and asks the tokenizer for none, whatever the folder says.

    Args:
        changes: What the files beside tokenizer.json make other.
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: The vocabulary lacks it, or special tokens are read as texts.
    """
    if str(config.get("model_type")) != COLPALI:
        return changes
    if changes.splits_special_tokens:
        raise FormatError(f"{folder}: split_special_tokens: prompts are written by special tokens")
    bos = tokenizer_token(folder, "bos_token", BOS)
    number = PromptTokens.read(folder).id_of(bos)
    return replace(changes, post_processor=template((bos, number), None))


def _costs(sizes: VisionSizes, config: Mapping[str, Any]) -> dict[str, float]:
    """Return what pictures cost in tokens of a text, as `PagePrefix` has it: by the products of both parts."""
    text = COLPALI_DECODER.read(config)
    heads = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    of_decoder = text.num_hidden_layers * text.hidden_size * (heads + 3 * text.intermediate_size)
    projector = sizes.hidden_size * text.hidden_size
    return {
        "token_cost": 1 + (work_of(sizes) + projector) / of_decoder,
        "pair_cost": 2 * sizes.num_hidden_layers * sizes.hidden_size / of_decoder,
    }
