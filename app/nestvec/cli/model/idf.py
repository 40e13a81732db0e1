"""`nestvec model fit --idf`: counts in how many texts each of a model's terms occurs."""

from collections.abc import Iterator, Sequence

import click
from tqdm import tqdm

from nestvec.assembly.package import prepare_model
from nestvec.config.settings import Settings
from nestvec.engine.outputs.adapters import model_words
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import IdArray, OutputKind, Truncation
from nestvec.engine.vectors.term_table import count_terms
from nestvec.errors import ConfigError, FormatError
from nestvec.model_store.artefacts.term_counts import store_term_table

CALL_TEXTS = 256


def keep_term_counts(settings: Settings, texts: Sequence[str]) -> None:
    """Count the terms of texts, and keep the counts beside the artefact of the settings' model.

    Raises:
        ConfigError: The texts have no term.
        FormatError: The model gives no vectors, or has a head for weights of terms.
    """
    package = prepare_model(settings)
    spec, form = package.spec, settings.text.form()
    if OutputKind.SPARSE in spec.kinds:
        raise FormatError(
            f"{spec.name} has a head for weights of terms, trained for it: counts would stand in its place"
        )
    if OutputKind.DENSE not in spec.kinds:
        raise FormatError(
            f"--idf is for models that give vectors of texts, and {spec.name} is {model_words(spec)}"
        )
    tokenizer = package.open_tokenizer(spec.max_tokens, form)
    try:
        table = count_terms(
            _token_ids(tokenizer, texts),
            spec.vocabulary_size,
            tokenizer.special_ids,
            form.space_of(spec.space),
        )
    except ValueError as error:
        raise ConfigError([f"--texts: {error}"]) from error
    path = store_term_table(package.artefact, table)
    seen = int((table.counts > 0).sum())
    click.echo(
        f"{path}: {seen} terms of {table.documents} texts, {table.average_tokens:.1f} tokens each, "
        f"space {table.space}"
    )


def _token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[IdArray]:
    """Iterate over texts' ids as a server weighs them: without special tokens, cut at the model's length."""
    options = TokenizeOptions(Truncation.END, adds_special_tokens=False, allows_nothing=True)
    with tqdm(unit="text", total=len(texts)) as bar:
        for start in range(0, len(texts), CALL_TEXTS):
            encoded = tokenizer.encode_texts(texts[start : start + CALL_TEXTS], options)
            yield from (value.ids for value in encoded)
            bar.update(len(encoded))
