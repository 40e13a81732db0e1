"""What makes a model a re-ranker that reads pairs in a template: its folder's word, or its card's."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.pair_template import PairTemplate
from nestvec.errors import FormatError
from nestvec.model_store.heads.base import Head, read_model_settings
from nestvec.model_store.heads.chat_templates import find_pair_template
from nestvec.model_store.heads.classifier import is_classifier
from nestvec.model_store.heads.logit_score import LOGIT_SCORE, LogitScoreHead

LOGIT_SCORE_KEY: Final = "logit_score"  # of a card's overrides


def scores_in_pairs(
    config: Mapping[str, Any], kinds: Sequence[str], overrides: Mapping[str, Any]
) -> bool:
    """Whether a folder is that of a classifier, or of a causal model that is one.

    Args:
        config: Its config.json.
        kinds: Of its modules.
        overrides: Of its card.
    """
    return LOGIT_SCORE in kinds or LOGIT_SCORE_KEY in overrides or is_classifier(config)


def card_head(
    folder: Path,
    root: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    overrides: Mapping[str, Any],
) -> Head | None:
    """Return the head of a model whose card says which tokens are compared; None for all others.

    Args:
        folder: The encoder's folder.
        root: The model's folder.
        config: Its config.json.
        hidden_size: Columns of the states, H.
        overrides: Of its card.

    Raises:
        FormatError: The family is no decoder, or a token is none of the vocabulary.
    """
    if LOGIT_SCORE_KEY not in overrides:
        return None
    tokens = overrides[LOGIT_SCORE_KEY]
    return LogitScoreHead.read(folder, config, hidden_size, tokens, read_model_settings(root))


def with_activation(head: Head, overrides: Mapping[str, Any]) -> Head:
    """Return a head with the activation that a card says."""
    if "activation" not in overrides:
        return head
    return dataclasses.replace(head, activation=overrides["activation"])


def pair_template(
    folder: Path,
    head: Head,
    overrides: Mapping[str, Any],
    *,
    speaks_in_messages: bool | None,
    instruction: str,
) -> PairTemplate | None:
    """Find the template of a re-ranker's pairs; None for all other models.

    Args:
        folder: The encoder's folder.
        head: Its head.
        overrides: Of its card.
        speaks_in_messages: Whether the folder says that pairs go through its chat template; None where it says nothing.
        instruction: The folder's default prompt, which is the instruction of such models; "" for none.

    Raises:
        FormatError: It is not known, or the model has labels to which none belongs.
    """
    if len(head.labels) != 1:
        if "pair" in overrides or (head.labels and speaks_in_messages):
            raise FormatError(f"{folder}: pairs in a template are for re-rankers, with one label")
        return None
    return find_pair_template(
        folder,
        overrides,
        speaks_in_messages=speaks_in_messages,
        instruction=instruction,
        needs_template=isinstance(head, LogitScoreHead),
    )
