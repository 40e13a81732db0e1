"""BERT, ERNIE, and ELECTRA's discriminator, a BERT whose word embeddings may be narrower (arXiv:2003.10555)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from typing_extensions import override

from nestvec.export.config.config_fields import boolean, positive
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import PostNormEncoder

BERT: Final = PostNormEncoder("bert.")
ELECTRA: Final = PostNormEncoder("electra.", projects_embeddings=True)


class _Ernie(PostNormEncoder):
    """ERNIE 3.0 (arXiv:2107.02137) as transformers has it: every token is of the first of its training's tasks."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the fields that the graph depends on.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        tasks = 0
        if boolean(config, "use_task_id", default=False):
            tasks = positive(config, "task_type_vocab_size", 3)
        return super(_Ernie, replace(self, fields={"task_types": tasks})).read(config)


ERNIE: Final = _Ernie("ernie.")
