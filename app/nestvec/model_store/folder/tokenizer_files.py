"""The tokenizer as transformers builds it: what the files beside tokenizer.json change, or a refusal by file and field.

Sources: `PreTrainedTokenizerBase._from_pretrained` and the fast tokenizer classes of transformers 4.57.6 and 5.24.0;
`Transformer.__init__` of sentence-transformers 5.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.tokenizer_changes import NO_CHANGES, TokenizerChanges
from nestvec.errors import FormatError
from nestvec.export.two_towers.nomic_vision import is_nomic_vision
from nestvec.model_store.folder.tokenizer_classes import (
    BY_MODEL_TYPE,
    CLASSES,
    LLAMA,
    PLAIN,
    PLAIN_IN_NEW,
    REMOTE,
    SIGLIP2,
    UNSUPPORTED,
    TokenizerClass,
)
from nestvec.model_store.folder.tokenizer_tokens import AddedTokens, read_added_tokens
from nestvec.model_store.folder.transformer_settings import (
    TransformerSettings,
    read_transformer_settings,
)
from nestvec.model_store.sources.file_names import TOKENIZER_CONFIG_FILE
from nestvec.model_store.sources.tokenizer_parts import (
    TokenizerParts,
    bert_normalizer,
    converted_parts,
    lowercased,
    template,
    template_ids,
)
from nestvec.system.json_files import read_json

# The override of a card by which tokenizer.json stands for itself.
OVERRIDE: Final = "tokenizer"
PLAIN_TOKENIZER: Final = "plain"
NEW_MAJOR_VERSION: Final = 5  # of transformers
BERT_SPLITTER: Final = {"type": "BertPreTokenizer"}
NO_NORMALIZER: Final[Mapping[str, Any]] = {"type": "Sequence", "normalizers": []}
NO_SPLITTER: Final[Mapping[str, Any]] = {"type": "Sequence", "pretokenizers": []}
# Other forms of a tokenizer, which transformers converts.
OTHER_TOKENIZERS: Final = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    *("vocab.txt", "vocab.json"),
)


def without_tokenizer(folder: Path, config: Mapping[str, Any]) -> str:
    """Say what is wrong with a folder without tokenizer.json, and the way out where there is one.

    Args:
        folder: The folder.
        config: Its config.json.
    """
    if is_nomic_vision(config):
        return f"{folder}: takes pictures only: serve the model of texts of its space, with this one as picture_model"
    other_forms = [name for name in OTHER_TOKENIZERS if (folder / name).is_file()]
    message = f"{folder}: tokenizer.json is missing"
    if not other_forms:
        return message
    return (
        f"{message}, and {other_forms[0]} is not read; in a venv with transformers (and sentencepiece) write it by "
        f'`AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")`'
    )


def read_tokenizer_changes(
    folder: Path,
    config: Mapping[str, Any],
    vocabulary_size: int,
    overrides: Mapping[str, Any] | None = None,
    settings: TransformerSettings | None = None,
) -> TokenizerChanges:
    """Read what the files beside a folder's tokenizer.json make other than it says.

    Args:
        folder: Holds tokenizer.json and, where there are any, the others.
        config: The model's config.json: names a tokenizer's class, and the version that wrote the folder.
        vocabulary_size: Number of rows of the embedding table.
        overrides: From a model card: `tokenizer = "plain"` for tokenizer.json alone.
        settings: sentence-transformers' of its Transformer module; None where they are still to be read.

    Returns:
        The changes; none where transformers' tokenizer gives the same ids as tokenizer.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what cannot be reproduced; names file and field.
    """
    if (overrides or {}).get(OVERRIDE) == PLAIN_TOKENIZER:
        return NO_CHANGES
    path = folder / TOKENIZER_CONFIG_FILE
    fields = read_json(path) if path.is_file() else {}
    parts = TokenizerParts.read(folder / "tokenizer.json")
    if parts is None:  # opening it says why
        return NO_CHANGES
    is_new = _major_version(config) >= NEW_MAJOR_VERSION
    tokenizer_class = _tokenizer_class(folder, fields, config)
    if is_new and not tokenizer_class.is_own_code:
        tokenizer_class = _new_class(tokenizer_class, config)
    if config.get("model_type") == "siglip2" and (is_new or fields.get("do_lower_case") is True):
        tokenizer_class = SIGLIP2
    building = _Building(path, fields, parts, tokenizer_class, is_new)
    added = read_added_tokens(folder, fields, tokenizer_class, parts, vocabulary_size)
    normalizer, splitter = building.splitting()
    settings = settings or read_transformer_settings(folder)
    if settings.values.get("do_lower_case") or tokenizer_class.lowers:
        normalizer = lowercased(normalizer)
    return TokenizerChanges(
        normalizer=None if normalizer == parts.normalizer else normalizer or NO_NORMALIZER,
        pre_tokenizer=None if splitter == parts.pre_tokenizer else splitter or NO_SPLITTER,
        post_processor=building.post_processor(added),
        added_tokens=added.changed,
        splits_special_tokens=bool(building.flag("split_special_tokens", default=False)),
    )


def _major_version(config: Mapping[str, Any]) -> int:
    """Major version of the transformers that wrote a config.json; 4 where it says none."""
    version = str(config.get("transformers_version") or "").partition(".")[0]
    return int(version) if version.isdecimal() else 4


def _tokenizer_class(
    folder: Path, fields: Mapping[str, Any], config: Mapping[str, Any]
) -> TokenizerClass:
    """Find the class that AutoTokenizer would take, authors' code included.

    Raises:
        FormatError: It is one whose tokens tokenizer.json does not give.
    """
    file = folder / TOKENIZER_CONFIG_FILE
    name, code = fields.get("tokenizer_class"), _remote_name(fields)
    if name is None:
        name, code = config.get("tokenizer_class"), code or _remote_name(config)
    if code is not None:
        if code in REMOTE:
            return REMOTE[code]
        raise FormatError(
            f"{file}: auto_map: the tokenizer's own code ({code}) is never run, and may give other tokens than "
            f'tokenizer.json; a card with overrides.{OVERRIDE} = "{PLAIN_TOKENIZER}" says that it does not'
        )
    if name is None:
        name = BY_MODEL_TYPE.get(str(config.get("model_type")), "")
    if not isinstance(name, str):
        raise FormatError(f"{file}: tokenizer_class must be a text")
    name = name.removesuffix("Fast")
    if name in UNSUPPORTED:
        raise FormatError(
            f"{file}: tokenizer_class: {name} gives other tokens than tokenizer.json; a card with "
            f'overrides.{OVERRIDE} = "{PLAIN_TOKENIZER}" says that it does not'
        )
    return CLASSES.get(name, PLAIN)


def _new_class(tokenizer_class: TokenizerClass, config: Mapping[str, Any]) -> TokenizerClass:
    """The class as version 5 has it."""
    if config.get("model_type") in PLAIN_IN_NEW:
        return PLAIN
    if tokenizer_class.mask_is_normalized is None or tokenizer_class.sets_case:
        return tokenizer_class
    return replace(tokenizer_class, mask_is_normalized=None)  # only MPNet kept a mask of its own


def _remote_name(fields: Mapping[str, Any]) -> str | None:
    """Name of authors' tokenizer code in `auto_map`, without its repository; None where there is none."""
    code = fields.get("auto_map")
    if isinstance(code, dict):
        code = code.get("AutoTokenizer")
    if isinstance(code, list):
        code = next((name for name in reversed(code) if name), None)
    return str(code).rpartition("--")[2] if code else None


@dataclass(frozen=True, slots=True)
class _Building:
    """What a class makes of a tokenizer.json and the settings beside it.

    Attributes:
        path: Path of tokenizer_config.json, for messages.
        fields: Its content.
        parts: What tokenizer.json says.
        tokenizer_class: The class.
        is_new: Whether version 5's rules count.
    """

    path: Path
    fields: Mapping[str, Any]
    parts: TokenizerParts
    tokenizer_class: TokenizerClass
    is_new: bool

    def flag(self, name: str, *, default: bool | None) -> bool | None:
        """Return a field that is true or false; null is allowed where it is the default.

        Raises:
            FormatError: It is neither.
        """
        value = self.fields.get(name, default)
        if isinstance(value, bool) or (value is None and default is None):
            return value
        raise FormatError(f"{self.path}: {name} must be true or false, not {value!r}")

    def splitting(self) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        """Return the normalizer and the pre-tokenizer that the class uses."""
        normalizer, splitter = self.parts.normalizer, self.parts.pre_tokenizer
        if self.fields.get("fix_mistral_regex"):
            raise FormatError(
                f"{self.path}: fix_mistral_regex: the pre-tokenizer would be replaced, which is not supported; a "
                f'card with overrides.{OVERRIDE} = "{PLAIN_TOKENIZER}" takes tokenizer.json as it is'
            )
        if self.tokenizer_class.sets_case:
            normalizer = bert_normalizer(
                normalizer,
                lowercase=bool(self.flag("do_lower_case", default=True)),
                strip_accents=self.flag("strip_accents", default=None),
                handle_chinese_chars=bool(self.flag("tokenize_chinese_chars", default=True)),
                checks_chinese=self.tokenizer_class.checks_chinese or self.is_new,
                is_new=self.is_new,
            )
            if self.is_new:
                splitter = BERT_SPLITTER
        adds_space = self._adds_space()
        if self.tokenizer_class.is_converted:
            if self.tokenizer_class is not LLAMA and adds_space is not False:
                return normalizer, splitter  # T5's conversion puts a blank there by default
            if self.is_new and self.tokenizer_class is LLAMA:
                converted = converted_parts(self.parts, adds_space=adds_space is not False)
                return converted or (normalizer, splitter)
            return (normalizer, splitter) if adds_space is None else self._converted(adds_space)
        is_changed = adds_space is not None and (
            self.tokenizer_class.is_byte_level or not self.is_new
        )
        if is_changed and splitter is not None and splitter.get("type") == "ByteLevel":
            splitter = {**splitter, "add_prefix_space": adds_space}
        return normalizer, splitter

    def _adds_space(self) -> bool | None:
        """`add_prefix_space`; None where it, or its default, leaves every part as it is."""
        name = "add_prefix_space"
        if self.fields.get(name, ...) is None:
            return None
        return self.flag(name, default=None if self.tokenizer_class.is_converted else False)

    def _converted(
        self,
        adds_space: bool,  # noqa: FBT001 - the only argument
    ) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        """The parts that a conversion of tokenizer.model gives, which `add_prefix_space` asks for."""
        is_legacy = self.flag("legacy", default=None) is not False
        converted = None
        if self.tokenizer_class is LLAMA:
            converted = converted_parts(self.parts, adds_space=adds_space, is_legacy=is_legacy)
        if converted is None:
            raise FormatError(
                f"{self.path}: add_prefix_space: the tokenizer would be converted from tokenizer.model, which is not "
                f'read; a card with overrides.{OVERRIDE} = "{PLAIN_TOKENIZER}" takes tokenizer.json as it is'
            )
        return converted

    def post_processor(self, added: AddedTokens) -> Mapping[str, Any] | None:
        """Return the template of `add_bos_token` and `add_eos_token`; None where the file's gives the same ids."""
        defaults = self.tokenizer_class.default_bos_eos
        if defaults is None or (self.is_new and not self.tokenizer_class.is_own_code):
            return None
        tokens = []
        for name, default in zip(("bos", "eos"), defaults, strict=True):
            is_added = self.flag(f"add_{name}_token", default=default)
            token = added.special.get(f"{name}_token") if is_added else None
            if token is not None and token not in added.ids and not self.fields:
                # A class's habit, of which no file says anything, and which the model knows no token for.
                return None
            if is_added and token is None:
                raise FormatError(
                    f"{self.path}: add_{name}_token is true, but {name}_token is null"
                )
            tokens.append(None if token is None else (token, self._id_of(token, name, added)))
        made = template(tokens[0], tokens[1])
        return None if template_ids(made) == template_ids(self.parts.post_processor) else made

    def _id_of(self, token: str, name: str, added: AddedTokens) -> int:
        token_id = added.ids.get(token)
        if token_id is None:
            raise FormatError(
                f"{self.path}: {name}_token: the model has no embedding for {token!r}, which is to stand around texts"
            )
        return token_id
