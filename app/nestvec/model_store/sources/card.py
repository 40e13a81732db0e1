"""Model cards: `models/<name>.toml`, what the server needs to know of a model beyond its own files."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.pair_template import PairTemplate
from nestvec.errors import FormatError

SOURCE_KINDS: Final = ("pypi", "hub", "folder")
KNOWN_KEYS: Final = {
    "name",
    "aliases",
    "license",
    "description",
    "languages",
    "language_count",
    "source",
    "trained_dimensions",
    "trained_layers",
    "overrides",
    "published",
    "config",
    "facts",
    "looked_up",
}
FACTS: Final = {"dimensions": int, "max_tokens": int, "pooling": str, "parameters": int}
ECHO_PARTS: Final = 2
# Language, script, region (RFC 5646, section 2.1), as far as models' languages go.
LANGUAGE_TAG: Final = re.compile("[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?")
OVERRIDES: Final = {
    "pooling": str,
    "normalize": bool,
    "max_tokens": int,
    "pools_prompt": bool,
    "prompts": dict,
    "adds_special_tokens": bool,
    "instruct": dict,
    "echo": list,
    "code": str,
    "is_causal": bool,
    "tokenizer": str,
    "pair": dict,
    "logit_score": dict,
    "activation": str,
    "layer_norm_beside_pictures": bool,
}
ACTIVATIONS: Final = ("sigmoid", "softmax", "identity")


@dataclass(frozen=True, slots=True)
class CardSource:
    """Where a model's files are.

    Attributes:
        kind: "pypi", "hub" or "folder".
        name: Distribution, Hub id or path.
        version: Exact version, or a Hub revision ("" is the default branch).
        path: Folder inside a wheel.
        sha256: Expected hash by file name; a file that differs is refused.
        files: Path of a file inside that folder, by the name it is to have; where empty, all files as they are.
    """

    kind: str
    name: str
    version: str = ""
    path: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishedVector:
    """Leading values of a text's vector that the model's authors publish."""

    text: str
    first_values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """One model card.

    Attributes:
        name: Name of the model.
        source: Where its files are.
        aliases: Further names that it is found and served by.
        license: SPDX id, or `LicenseRef-` and a word for a licence that SPDX does not list; "" where unknown.
        languages: BCP-47 tags of the languages that it was made for; empty where nobody says more than their number.
        language_count: Number of those languages; 0 where unknown.
        description: One line about it, for people.
        trained_dimensions: Matryoshka sizes that its authors trained; empty if only the full size.
        trained_layers: Early exits that its authors trained (2D Matryoshka); empty if none.
        overrides: What the model's own files leave out: pooling, pools_prompt (whether a prompt's tokens take part in
            it), normalize, max_tokens, prompts, adds_special_tokens, instruct (templates), echo (a text read twice),
            code ("plain": the authors' own code computes what transformers' class does), is_causal (how a decoder
            attends), tokenizer ("plain": tokenizer.json alone, whatever stands beside it), layer_norm_beside_pictures
            (texts' vectors go through a norm without weights where a model of pictures stands beside); of re-rankers
            pair (the template of a query and a document), logit_score (the tokens whose logits are compared),
            activation.
        published: Vectors that its authors publish; an export that gives others is refused.
        config: Stands for a config.json that the folder lacks.
        facts: What the model is: dimensions, max_tokens, pooling, parameters; files that say otherwise are refused.
        looked_up: Where each field was looked up, by its dotted name.
    """

    name: str
    source: CardSource
    aliases: tuple[str, ...] = ()
    license: str = ""
    languages: tuple[str, ...] = ()
    language_count: int = 0
    description: str = ""
    trained_dimensions: tuple[int, ...] = ()
    trained_layers: tuple[int, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[PublishedVector, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    looked_up: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of weights, as the authors or a registry state it; 0 where unknown."""
        return int(self.facts.get("parameters", 0))

    @property
    def dimensions(self) -> int:
        """Full number of dimensions; 0 where the card does not say it."""
        return int(self.facts.get("dimensions", max(self.trained_dimensions, default=0)))

    @property
    def smaller_dimensions(self) -> tuple[int, ...]:
        """The smaller sizes that its authors trained, the largest first."""
        sizes = (size for size in self.trained_dimensions if size != self.dimensions)
        return tuple(sorted(sizes, reverse=True))

    def as_json(self) -> dict[str, Any]:
        """Return what it says to somebody who chooses a model; null where it says nothing."""
        return {
            "model": self.name,
            "aliases": list(self.aliases),
            "license": self.license or None,
            "languages": list(self.languages),
            "parameters": self.parameters or None,
            "dimensions": self.dimensions or None,
            "trained_dimensions": list(self.smaller_dimensions),
            "trained_layers": list(self.trained_layers),
            "max_tokens": self.facts.get("max_tokens"),
        }

    def check_facts(self, *, dimensions: int, pooling: str) -> None:
        """Compare the card's facts with what the files say.

        Raises:
            FormatError: They differ: it is another model than the card was written for.
        """
        for name, value in (("dimensions", dimensions), ("pooling", pooling)):
            fact = self.facts.get(name)
            if fact is not None and fact != value:
                raise FormatError(
                    f"card '{self.name}': facts.{name} is {fact!r}, but the model's files say {value!r}"
                )


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        FormatError: It is not TOML, or a key is missing, unknown or of the wrong type; names the key.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable TOML card ({error})") from error
    if unknown := set(data) - KNOWN_KEYS:
        raise FormatError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    try:
        source = _read_source(data["source"])
        _check_overrides(data.get("overrides", {}))
        _check_facts(data.get("facts", {}))
        languages = _languages(data.get("languages", []))
        return Card(
            name=_text(data["name"]),
            source=source,
            aliases=tuple(_text(a) for a in data.get("aliases", ())),
            license=_text(data.get("license", "")),
            languages=languages,
            language_count=_language_count(data.get("language_count"), languages),
            description=_text(data.get("description", "")),
            trained_dimensions=tuple(int(d) for d in data.get("trained_dimensions", ())),
            trained_layers=_layers(data.get("trained_layers", ())),
            overrides=data.get("overrides", {}),
            config=dict(data.get("config", {})),
            facts=dict(data.get("facts", {})),
            looked_up={k: _text(v) for k, v in data.get("looked_up", {}).items()},
            published=tuple(
                PublishedVector(_text(p["text"]), tuple(float(v) for v in p["first_values"]))
                for p in data.get("published", ())
            ),
        )
    except KeyError as error:
        raise FormatError(f"{path}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: {error}") from error


def find_card(name: str, folders: tuple[Path, ...]) -> Card | None:
    """Find the first card whose name, file name or alias is `name`, in any case; None if there is none.

    Raises:
        FormatError: A card before it cannot be read.
    """
    wanted = name.casefold()
    for path in card_files(folders):
        card = read_card(path)
        if wanted in {n.casefold() for n in (card.name, path.stem, *card.aliases)}:
            return card
    return None


def card_files(folders: tuple[Path, ...]) -> list[Path]:
    """Return the paths of all cards in these folders, earlier folders first."""
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.toml"))]


def read_cards(folders: tuple[Path, ...]) -> dict[str, Card]:
    """Read all cards in these folders, by the names of their files; of one name the earlier folder's counts.

    Raises:
        FormatError: One of them is no card; names the file and the key.
    """
    cards: dict[str, Card] = {}
    for path in card_files(folders):
        if path.stem not in cards:
            cards[path.stem] = read_card(path)
    return cards


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _languages(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(
        isinstance(tag, str) and LANGUAGE_TAG.fullmatch(tag) for tag in values
    ):
        raise ValueError("languages must be a list of BCP-47 tags, such as 'en' or 'zh-Hant'")
    if len(set(values)) != len(values):
        raise ValueError("languages names one twice")
    return tuple(values)


def _language_count(count: object, languages: tuple[str, ...]) -> int:
    if count is None:
        return len(languages)
    if languages:
        raise ValueError("language_count is for cards without languages, whose number it is")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError("language_count must be a number of languages")
    return count


def _layers(values: Sequence[object]) -> tuple[int, ...]:
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in values):
        raise ValueError("trained_layers must be numbers of layers")
    return tuple(sorted({int(str(n)) for n in values}))


def _read_source(data: Mapping[str, Any]) -> CardSource:
    kind = _text(data["kind"])
    if kind not in SOURCE_KINDS:
        raise ValueError(f"source.kind must be one of {', '.join(SOURCE_KINDS)}")
    if kind == "pypi" and not (data.get("version") and data.get("sha256")):
        raise ValueError("a pypi source needs an exact version and sha256 hashes of its files")
    return CardSource(
        kind=kind,
        name=_text(data["name"]),
        version=_text(data.get("version", "")),
        path=_text(data.get("path", "")),
        sha256={_text(k): _text(v).lower() for k, v in data.get("sha256", {}).items()},
        files={_text(k): _text(v) for k, v in data.get("files", {}).items()},
    )


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if key not in OVERRIDES:
            raise ValueError(f"overrides.{key} is unknown; known: {', '.join(OVERRIDES)}")
        if not isinstance(value, OVERRIDES[key]):
            raise TypeError(f"overrides.{key} must be a {OVERRIDES[key].__name__}")
    if overrides.get("code", "plain") != "plain":
        raise ValueError("overrides.code may only be 'plain', as the code is never run")
    if overrides.get("tokenizer", "plain") != "plain":
        raise ValueError("overrides.tokenizer may only be 'plain', for tokenizer.json alone")
    instruct = overrides.get("instruct", {})
    if instruct and not (
        set(instruct) <= {"template", "example"}
        and "{instruction}" in str(instruct.get("template"))
        and all(isinstance(text, str) for text in instruct.values())
    ):
        raise ValueError(
            "overrides.instruct needs a template with {instruction}, and may have an example"
        )
    _check_reranker(overrides)
    echo = overrides.get("echo", ["", ""])
    if len(echo) != ECHO_PARTS or not all(isinstance(text, str) for text in echo):
        raise ValueError(
            "overrides.echo must be two texts: before the first reading, between the two"
        )


def _check_reranker(overrides: Mapping[str, Any]) -> None:
    """Check what a card says of a re-ranker.

    Raises:
        ValueError: A value makes no sense; names the key.
    """
    if "pair" in overrides:
        try:
            PairTemplate.from_table(overrides["pair"])
        except ValueError as error:
            raise ValueError(f"overrides.pair {error}") from error
    tokens = overrides.get("logit_score", {"true_token": 0})
    if "true_token" not in tokens or not set(tokens) <= {"true_token", "false_token"}:
        raise ValueError("overrides.logit_score takes a true_token, and may have a false_token")
    if overrides.get("activation", ACTIVATIONS[0]) not in ACTIVATIONS:
        raise ValueError(f"overrides.activation must be one of {', '.join(ACTIVATIONS)}")


def _check_facts(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        if key not in FACTS:
            raise ValueError(f"facts.{key} is unknown; known: {', '.join(FACTS)}")
        if not isinstance(value, FACTS[key]) or isinstance(value, bool):
            raise TypeError(f"facts.{key} must be a {FACTS[key].__name__}")
