"""`nestvec model prune`: counts what a corpus needs, prunes, and measures on texts that were held out what is lost."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.assembly.library.embedder import Embedder
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import OutputKind, Truncation
from nestvec.errors import FormatError
from nestvec.export.families.static import SUBWORDS, TABLE_ROWS
from nestvec.export.graph.weights import weight_files
from nestvec.model_store.folder.model_folder import ModelFolder
from nestvec.model_store.pruning.folder import PrunedTokens
from nestvec.model_store.pruning.scripts import letter_scripts, scripts_of_language
from nestvec.model_store.pruning.tokens import TokenizerModel
from nestvec.system.json_files import load_json

TEXTS_AT_ONCE: Final = 256
# Of the texts that are held out, whose vectors are compared, evenly spread over the first so many.
MEASURED_TEXTS: Final = 200
HELD_TEXTS: Final = 20_000
SAMPLED_TEXTS: Final = 64  # of those that count, whose vectors must stay
OPTIONS: Final = TokenizeOptions(Truncation.END)


@dataclass
class CorpusTokens:
    """What texts need of a vocabulary.

    Attributes:
        used: Which ids the texts have that count, [V].
        scripts: Scripts of their letters.
        texts: How many texts counted.
        sample: The first of those, to see that their vectors stay.
        held_out: Texts that did not count, for measuring.
        held_out_counts: How often each id stands in those, [V].
    """

    used: NDArray[np.bool_]
    scripts: set[str] = field(default_factory=set)
    texts: int = 0
    sample: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    held_out_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class PruningLoss:
    """What a smaller model loses, on texts that were held out.

    Attributes:
        texts: How many there were.
        lost_tokens: Share of their tokens that are not kept.
        kept_texts: Of the texts compared, and some that counted, those all of whose tokens are kept.
        same_texts: Of those, how many have the same ids.
        min_cosine: Least cosine of a text's two vectors; None where the model gives none, or there is no text.
        mean_cosine: Their mean.
        max_kept_error: Greatest difference of a value in vectors of kept texts.
    """

    texts: int
    lost_tokens: float
    kept_texts: int
    same_texts: int
    min_cosine: float | None = None
    mean_cosine: float | None = None
    max_kept_error: float | None = None


def rows_of(folder: ModelFolder) -> int:
    """Return the number of rows of a model's table of tokens."""
    if SUBWORDS in folder.config:
        return int(folder.config[TABLE_ROWS])
    return folder.vocabulary_size


def count_corpus(folder: ModelFolder, texts: Iterable[str], held_out: float) -> CorpusTokens:
    """Count the tokens of a corpus.

    Args:
        folder: The model.
        texts: The corpus, with the model's prompts as they are used.
        held_out: Share of the texts that is held out, evenly spread.
    """
    rows = rows_of(folder)
    found = CorpusTokens(np.zeros(rows, bool), held_out_counts=np.zeros(rows, np.int64))
    tokenizer = folder.open_tokenizer()
    prompts = [prompt for prompt in folder.prompts.values() if prompt]
    for ids in tokenizer.encode_plain(prompts, OPTIONS):
        found.used[ids % rows] = True
    every = round(1 / held_out) if held_out > 0 else 0
    numbered = enumerate(texts)
    while part := list(itertools.islice(numbered, TEXTS_AT_ONCE)):
        kept = [text for number, text in part if not every or number % every != every - 1]
        others = [text for number, text in part if every and number % every == every - 1]
        for ids in tokenizer.encode_plain(kept, OPTIONS) if kept else ():
            found.used[ids % rows] = True
        for ids in tokenizer.encode_plain(others, OPTIONS) if others else ():
            found.held_out_counts += np.bincount(ids % rows, minlength=rows)
        found.texts += len(kept)
        found.sample += kept[: SAMPLED_TEXTS - len(found.sample)]
        found.scripts |= set[str]().union(*map(letter_scripts, kept))
        found.held_out += others[: HELD_TEXTS - len(found.held_out)]
    return found


def use_languages(folder: ModelFolder, found: CorpusTokens, tags: Sequence[str]) -> None:
    """Add every token that is written in the letters of some languages, or in none.

    Raises:
        FormatError: A language is not known, or the tokenizer is of a kind that cannot be pruned.
    """
    scripts = frozenset[str]().union(*map(scripts_of_language, tags))
    model = TokenizerModel.read(load_json(folder.tokenizer_path.read_text("utf-8")))
    for token, number in model.ids.items():
        text = model.spelled(token)
        if number < len(found.used) and (text is None or letter_scripts(text) <= scripts):
            found.used[number] = True
    found.scripts |= scripts


def measure_loss(
    source: ModelFolder,
    pruned: ModelFolder,
    tokens: PrunedTokens,
    found: CorpusTokens,
    models: tuple[str, str],
    shared: Mapping[str, Any],
) -> PruningLoss:
    """Compare both models on texts that were held out.

    Args:
        source: The model.
        pruned: The smaller one.
        tokens: Which tokens it has.
        found: The corpus.
        models: What each is loaded by: a folder or the path of a card.
        shared: Settings of both: where caches and cards lie.
    """
    is_kept = np.zeros(tokens.rows, bool)
    is_kept[tokens.old_ids] = True
    total = int(found.held_out_counts.sum())
    lost = int(found.held_out_counts[~is_kept].sum()) / total if total else 0.0
    held_out = _spread(found.held_out)
    texts = [*held_out, *found.sample]
    kept, same = _same_ids(source, pruned, tokens, texts)
    loss = PruningLoss(len(found.held_out), lost, len(kept), same)
    if not texts or OutputKind.DENSE not in source.head.kinds:
        return loss
    first, second = (_vectors(model, texts, shared) for model in models)
    cosines = np.einsum("td,td->t", first.astype(np.float64), second.astype(np.float64))
    measured = cosines[: len(held_out)]
    return replace(
        loss,
        min_cosine=float(measured.min()) if held_out else None,
        mean_cosine=float(measured.mean()) if held_out else None,
        max_kept_error=float(np.abs(first - second)[kept].max()) if kept else None,
    )


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weights."""
    return sum(path.stat().st_size for path in weight_files(folder, reads_pickles=False))


def _spread(texts: Sequence[str]) -> list[str]:
    """Return some of the texts, evenly spread."""
    step = max(1, len(texts) // MEASURED_TEXTS)
    return list(texts[::step][:MEASURED_TEXTS])


def _same_ids(
    source: ModelFolder, pruned: ModelFolder, tokens: PrunedTokens, texts: Sequence[str]
) -> tuple[list[int], int]:
    """Return the numbers of the texts all of whose tokens are kept, and how many of those have the same ids."""
    if not texts:
        return [], 0
    new_ids = np.full(tokens.rows, -1, np.int64)
    new_ids[tokens.old_ids] = np.arange(len(tokens.old_ids))
    kept, same = [], 0
    pairs = zip(
        _ids(source.open_tokenizer(), texts), _ids(pruned.open_tokenizer(), texts), strict=True
    )
    for number, (old, new) in enumerate(pairs):
        moved = new_ids[old % tokens.rows]
        if (moved < 0).any():
            continue
        kept.append(number)
        goes_on = len(tokens.old_ids) * (old >= tokens.rows)
        same += np.array_equal(moved + goes_on, new)
    return kept, same


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    for encoded in tokenizer.encode_texts(texts, OPTIONS):
        yield encoded.ids.astype(np.int64)


def _vectors(model: str, texts: Sequence[str], shared: Mapping[str, Any]) -> NDArray[np.float32]:
    """Embed texts by a model in float32."""
    with Embedder(model, **shared, precision="fp32", provider="cpu") as embedder:
        vectors: NDArray[np.float32] = embedder.embed(texts, truncate="end")
        return vectors


def check_corpus(found: CorpusTokens, tags: Sequence[str]) -> None:
    """Refuse to prune to nothing.

    Raises:
        FormatError: There is neither a text nor a language.
    """
    if not found.texts and not tags:
        raise FormatError("no text in the corpus: there is nothing to prune to")
