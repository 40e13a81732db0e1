"""What a model folder's own files say: pooling, normalization, lengths, prompts. Read or refused, never guessed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.pair_template import PairTemplate
from nestvec.engine.text.preparation.chat_frame import ChatFrame
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS, TextForm
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_changes import NO_CHANGES, TokenizerChanges
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.config.quantization import read_quantization
from nestvec.export.families.static import SUBWORDS
from nestvec.model_store.folder.attention_windows import with_windows
from nestvec.model_store.folder.claims import Recording, check
from nestvec.model_store.folder.field_claims import FolderFiles, field_claims
from nestvec.model_store.folder.modules import (
    QUERY_WEIGHTS,
    TRANSFORMERS,
    Module,
    encoder_folder,
    read_head,
    read_modules,
)
from nestvec.model_store.folder.picture_reading import read_pictures
from nestvec.model_store.folder.pooling_settings import read_pooling
from nestvec.model_store.folder.remote_code import with_code
from nestvec.model_store.folder.router import check_query_tokenizer
from nestvec.model_store.folder.static_folders import find_static, read_subwords
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes, without_tokenizer
from nestvec.model_store.folder.transformer_settings import (
    TransformerSettings,
    read_max_tokens,
    read_transformer_settings,
    speaks_in_messages,
)
from nestvec.model_store.heads.base import Head, read_prompts
from nestvec.model_store.heads.late import m3_files
from nestvec.model_store.heads.rerankers import (
    card_head,
    pair_template,
    scores_in_pairs,
    with_activation,
)
from nestvec.model_store.heads.words import WordHead
from nestvec.model_store.sources.adapters import ADAPTER_CONFIG, adapter_alone
from nestvec.model_store.sources.graph_choice import choose_graph, refuse_pickles
from nestvec.model_store.two_towers.picture_settings import PictureSettings
from nestvec.model_store.two_towers.reading import read_tower_head
from nestvec.model_store.two_towers.text_padding import with_tower
from nestvec.model_store.vision_language.chat import read_chat, with_chat
from nestvec.model_store.vision_language.colpali import with_bos
from nestvec.model_store.vision_language.patch_models import read_patch_head
from nestvec.system.json_files import read_json

log = logging.getLogger(__name__)
GRAPH_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
MAX_NAMED: Final = 20  # of a folder's unknown fields


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder on this disk and what its files (and its card) say of it.

    Attributes:
        path: The encoder's folder, which holds config.json and tokenizer.json.
        config: Its config.json.
        architecture: The family's name, as the exporter knows it.
        layout: PACKED where the exporter knows the architecture, PADDED where `onnx_file` is served as it is.
        onnx_file: The folder's own graph, relative to it; None where we export one.
        weights: Files whose content decides the vectors.
        head: What follows the encoder; it names the pooling and the width of the encoder's states.
        vocabulary_size: Rows of the embedding table.
        max_tokens: Most tokens of an input, special tokens included.
        is_normalized: Whether vectors are scaled to unit length.
        pools_prompt: Whether a prompt's tokens count in pooling.
        prompts: Text put before an input, by name.
        default_prompt: Name of the prompt used where a call names none; None for no prompt.
        adds_special_tokens: Whether the tokenizer puts special tokens around a text.
        drops_unknown: Whether unknown tokens are left out (model2vec).
        instruct: Templates of instructions; None where the model takes none.
        echo: What stands before a text's first reading and between its two, for models that read it twice.
        tokenizer_changes: What the files beside tokenizer.json make other than it says.
        pair: The template of a re-ranker's pairs; None where they are read as two texts.
        pictures: How it takes pictures beside texts, or among them; None where it takes texts only.
        chat: The messages in which it reads texts; None where it reads them as they are.
    """

    path: Path
    config: Mapping[str, Any]
    architecture: str
    layout: Layout
    onnx_file: str | None
    weights: tuple[Path, ...]
    head: Head
    vocabulary_size: int
    max_tokens: int
    is_normalized: bool
    pools_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    adds_special_tokens: bool = True
    drops_unknown: bool = False
    instruct: Instruct | None = None
    echo: tuple[str, str] | None = None
    tokenizer_changes: TokenizerChanges = NO_CHANGES
    pair: PairTemplate | None = None
    pictures: PictureSettings | None = None
    chat: ChatFrame | None = None

    @property
    def tokenizer_path(self) -> Path:
        """Path of its tokenizer.json."""
        return self.path / TOKENIZER_FILE

    def graph(self, artefact: Path) -> Path:
        """Return the ONNX file to serve: the folder's own, or the one in the artefact's folder."""
        return self.path / self.onnx_file if self.onnx_file else artefact / GRAPH_FILE

    def open_tokenizer(
        self, max_tokens: int | None = None, form: TextForm = PLAIN_TEXTS
    ) -> Tokenizer:
        """Open the model's tokenizer.

        Args:
            max_tokens: Where it cuts an input; None for as many tokens as the model takes.
            form: The form that texts are brought into first.

        Raises:
            FormatError: It cannot be read.
        """
        return Tokenizer(
            self.tokenizer_path,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            vocabulary_size=self.vocabulary_size,
            adds_special_tokens=self.adds_special_tokens,
            drops_unknown=self.drops_unknown,
            changes=replace(self.tokenizer_changes, form=form),
        )


def read_model_folder(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    reads_pickles: bool = True,
) -> ModelFolder:
    """Read a folder in Hugging Face / sentence-transformers layout.

    Args:
        folder: Holds config.json, tokenizer.json and safetensors, a torch checkpoint or an ONNX graph.
        overrides: From a model card: pooling, normalize, max_tokens, prompts, adds_special_tokens.
        config: From a model card: stands for a config.json that the folder lacks.
        reads_pickles: Whether weights in torch's own format are read.

    Raises:
        FormatError: A file is missing or corrupt, something is nowhere said, or a module is not supported;
            names the file and the field.
    """
    encoder = _read_encoder(folder, overrides or {}, config, reads_pickles=reads_pickles)
    files, overrides = encoder.files, encoder.files.overrides
    pooling, pools_prompt = read_pooling(files.root, files.modules, overrides)
    head = _read_head(encoder, pooling, reads_pickles=reads_pickles)
    is_foreign = encoder.is_static and files.encoder != files.root
    prompts, default_prompt = read_prompts(files.root, overrides, is_foreign=is_foreign)
    positions = encoder.sizes.max_positions
    return ModelFolder(
        path=files.encoder,
        config=files.config,
        architecture=files.architecture,
        layout=encoder.layout,
        onnx_file=encoder.onnx_file,
        weights=(*encoder.weights, *head.files),
        head=head,
        vocabulary_size=encoder.sizes.vocab_size,
        max_tokens=read_max_tokens(files.encoder, positions, overrides, files.settings),
        # As OpenAI's are, whether the chain ends in Normalize or not; `normalize: false` gives raw ones.
        is_normalized=bool(overrides.get("normalize", True)),
        pools_prompt=pools_prompt,
        prompts={**head.prompts, **prompts},
        default_prompt=head.default_prompt if default_prompt is None else default_prompt,
        adds_special_tokens=bool(overrides.get("adds_special_tokens", True)),
        drops_unknown=bool(overrides.get("drops_unknown", False)),
        instruct=Instruct(**overrides["instruct"]) if "instruct" in overrides else None,
        echo=(overrides["echo"][0], overrides["echo"][1]) if "echo" in overrides else None,
        tokenizer_changes=_read_changes(encoder),
        pictures=None if encoder.onnx_file else read_pictures(files.encoder, files.config),
        chat=read_chat(
            files.encoder, files.config, "" if default_prompt is None else prompts[default_prompt]
        ),
        pair=pair_template(
            files.encoder,
            head,
            overrides,
            speaks_in_messages=speaks_in_messages(files.settings),
            instruction=prompts[default_prompt] if default_prompt is not None else "",
        ),
    )


@dataclass(frozen=True, slots=True)
class _Encoder:
    """A folder's encoder, without what stands behind it."""

    files: FolderFiles
    sizes: Dimensions
    onnx_file: str | None
    layout: Layout
    weights: tuple[Path, ...]
    is_static: bool


def _read_encoder(
    root: Path,
    overrides: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    *,
    reads_pickles: bool,
) -> _Encoder:
    """Find a folder's encoder, choose its graph, and check what its files say."""
    folder, config, overrides, modules, is_static = find_encoder(root, overrides, config)
    _text(config, "model_type", folder)
    architecture = architecture_of(config)
    scores_pairs = scores_in_pairs(config, [module.kind for module in modules], overrides)
    needs_states = scores_pairs or bool(m3_files(folder, reads_pickles=reads_pickles))
    onnx_file, layout, weights = choose_graph(
        folder, architecture, reads_pickles=reads_pickles, needs_states=needs_states
    )
    if not reads_pickles:
        refuse_pickles([each.folder for each in modules if each.kind not in TRANSFORMERS])
    if onnx_file is None and not is_static:
        config = _honoured(folder, config, architecture, overrides)
    asked = Recording(config)
    sizes = _dimensions(folder, asked, architecture, is_exported=onnx_file is None)
    settings = TransformerSettings(folder)
    if not is_static:
        settings = read_transformer_settings(folder, architecture, scores_pairs=scores_pairs)
    parts = architecture, modules, settings, overrides, onnx_file is not None
    files = FolderFiles(root, folder, config, *parts)
    if not is_static:
        _check_claims(files, asked)
    return _Encoder(files, sizes, onnx_file, layout, weights, is_static)


def _read_head(encoder: _Encoder, pooling: str | None, *, reads_pickles: bool) -> Head:
    """Read what stands behind an encoder."""
    files, size = encoder.files, encoder.sizes.hidden_size
    subwords = read_subwords(files.config) if encoder.is_static else None
    if subwords is not None:
        return WordHead(files.encoder, files.config, size, pooling or "mean", subwords=subwords)
    read = partial(read_head, pooling=pooling, root=files.root, reads_pickles=reads_pickles)
    kinds = [each.kind for each in files.modules]
    head = (
        read_tower_head(files.encoder, files.config, size, kinds)
        or read_patch_head(files.encoder, files.config, size, kinds)
        or card_head(files.encoder, files.root, files.config, size, files.overrides)
        or read(files.encoder, files.config, size, files.modules)
    )
    if encoder.onnx_file is not None and type(head) is not Head:
        raise FormatError(
            f"{files.encoder}: what stands behind its encoder needs an architecture that the exporter knows, not "
            f"{encoder.onnx_file}"
        )
    return with_activation(head, files.overrides)


def _read_changes(encoder: _Encoder) -> TokenizerChanges:
    """Read what the files beside tokenizer.json make other; the libraries of static models read it alone."""
    if encoder.is_static:
        return TokenizerChanges(subwords=encoder.files.config.get(SUBWORDS))
    files = encoder.files
    shared = files.config, files.overrides
    rows = encoder.sizes.vocab_size
    changes = read_tokenizer_changes(files.encoder, shared[0], rows, shared[1], files.settings)
    for module in files.modules:
        if module.kind == QUERY_WEIGHTS:
            check_query_tokenizer(module.folder, files.encoder, changes, *shared)
    changes = with_tower(changes, files.encoder, files.config)
    changes = with_bos(changes, files.encoder, files.config)
    return with_chat(changes, files.encoder, files.config)


def _check_claims(files: FolderFiles, asked: Recording) -> None:
    """Refuse what only a library reads, and name what nothing does in the log.

    Raises:
        FormatError: A field would change vectors, and is not served.
    """
    unknown = check(files.root, field_claims(files, frozenset(asked.read)))
    if unknown:
        log.info(
            "%s: fields that nothing reads: %s", files.root.name, ", ".join(unknown[:MAX_NAMED])
        )


def find_encoder(
    root: Path, overrides: Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[Path, Mapping[str, Any], Mapping[str, Any], tuple[Module, ...], bool]:
    """Find the encoder in a model's folder.

    Returns:
        Its own folder, its config.json, the card's overrides with those of its kind, the module chain, and whether it
        is a static model of another library.

    Raises:
        FormatError: A file is missing or corrupt, or a module is not supported.
    """
    static = find_static(root)
    if static is None:
        modules = read_modules(root, is_plain=overrides.get("code") == "plain")
        folder = encoder_folder(root, modules)
        path = folder / "config.json"
        if not config and not path.is_file() and (folder / ADAPTER_CONFIG).is_file():
            raise FormatError(adapter_alone(folder))
        config = dict(config) if config and not path.is_file() else read_json(path)
    else:
        folder, config, modules = static.folder, static.config, ()
        overrides = {**static.overrides, **overrides}
    if not (folder / TOKENIZER_FILE).is_file():
        raise FormatError(without_tokenizer(folder, config))
    return folder, config, overrides, modules, static is not None


def _honoured(
    folder: Path, config: Mapping[str, Any], architecture: str, overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return config.json with what authors' code or the card says of attention; quantised weights must be readable.

    A graph that is served as it is needs neither: it was made by that code, and holds its weights.
    """
    try:
        read_quantization(config)
        return with_windows(with_code(config, architecture, overrides), architecture)
    except FormatError as error:
        raise FormatError(f"{folder}/{error.message}") from error


def _dimensions(
    folder: Path, config: Mapping[str, Any], architecture: str, *, is_exported: bool
) -> Dimensions:
    """Return sizes by the family's own names for them; of a graph that is served as it is, by the usual ones."""
    if is_exported:
        try:
            return ARCHITECTURES[architecture].dimensions(config)
        except FormatError as error:
            raise FormatError(f"{folder}/{error.message}") from error
    positions = None
    if "max_position_embeddings" in config:
        positions = _positive(config, "max_position_embeddings", folder)
    return Dimensions(
        _positive(config, "hidden_size", folder), _positive(config, "vocab_size", folder), positions
    )


def _checked(test: Callable[[Any], bool], value: object, what: str) -> Any:  # noqa: ANN401 - narrowed by test
    if not test(value):
        raise FormatError(f"{what} is missing or of the wrong type")
    return value


def _int(value: object, what: str) -> int:
    number: int = _checked(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, value, what
    )
    return number


def _positive(config: Mapping[str, Any], name: str, folder: Path) -> int:
    return _int(config.get(name), f"{folder}/config.json: '{name}'")


def _text(config: Mapping[str, Any], name: str, folder: Path) -> str:
    what = f"{folder}/config.json: '{name}'"
    text: str = _checked(lambda v: isinstance(v, str) and bool(v), config.get(name), what)
    return text
