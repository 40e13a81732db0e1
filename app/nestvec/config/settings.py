"""Every setting: name with unit, default, range, help. Read once, frozen.

A flag wins over the environment (`NESTVEC_*`), the environment over the TOML file; `nestvec.config.loading` reads them.
"""

import os
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from nestvec.config.model_settings import PRECISIONS, AdapterTable, AliasTable, ModelTable
from nestvec.errors import ConfigError

PREFIX: Final = "NESTVEC_"
DEFAULT_PORT: Final = 8080
# Read outside this class: which file to load.
CONFIG_VARIABLE: Final = "NESTVEC_CONFIG"
# Set while settings are loaded, and then alone: pydantic-settings builds its sources from the class.
config_file: ContextVar[Path | None] = ContextVar("config_file", default=None)


def _split(value: object) -> object:
    """Lists come from the environment and flags as "a,b"."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _not_kubernetes(value: object) -> object:
    """A Kubernetes Service named "nestvec" injects NESTVEC_PORT=tcp://…, which nobody meant as a setting."""
    return DEFAULT_PORT if isinstance(value, str) and value.startswith("tcp://") else value


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share")) / "nestvec"


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache")) / "nestvec"


IdList = Annotated[list[Annotated[int, Field(ge=0)]], NoDecode, BeforeValidator(_split)]
TextList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
SecretList = Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


class Settings(BaseSettings):
    """What an operator can set. Field order is the order of the documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    model: str = Field(
        "all-MiniLM-L6-v2",
        min_length=1,
        description="Card name, folder, or Hub id (org/name) of the model to serve.",
    )
    models: ModelTable = Field(
        default_factory=dict,
        description="Further models: tables [models.NAME] in the TOML file, JSON, or sources, comma-separated; the "
        "flag --model may be repeated instead.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, BeforeValidator(_not_kubernetes)] = Field(
        DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    api_keys: SecretList = Field(
        default_factory=list,
        description="Keys that callers must send, comma-separated; none: open.",
    )
    api_keys_file: UserPath | None = Field(
        None, description="File with one key a line (a mounted secret), added to api_keys."
    )
    keys_file: UserPath | None = Field(
        None,
        description="Keys with limits, as `nestvec keys` makes them; read again when it changes (default: keys.json in "
        "data_dir, if it is there).",
    )
    allow_unauthenticated: bool = Field(
        False, description="Allow a non-loopback host without any key."
    )
    cache_dir: UserPath = Field(
        default_factory=_default_cache_dir,
        validate_default=True,
        description="Where fetched models and exported graphs are kept (default ~/.cache/nestvec).",
    )
    files_api: bool = Field(
        True,
        description="Serve /v1/files and /v1/batches; without them no text of a caller is ever written to disk.",
    )
    data_dir: UserPath = Field(
        default_factory=_default_data_dir,
        validate_default=True,
        description="Where uploaded files and batches are kept (default ~/.local/share/nestvec); one server a folder.",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Execution provider; auto takes a GPU where there is one."
    )
    max_batch_tokens: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Token budget of one micro-batch; 0: as tuned, else 256 or 512 by the CPU's L2 cache, and 8,192 or "
        "16,384 on a GPU.",
    )
    precision: PRECISIONS = Field(
        "auto",
        description="Arithmetic of the model. On CPU auto is fp32, int8 is fastest, int8-accurate is nearer to "
        "fp32, bf16 needs nestvec[openvino] and a CPU with AVX512_BF16 or AMX. On a GPU auto is the first of fp16, "
        "bf16 and fp32 whose vectors are right.",
    )
    truncate: Literal["error", "end", "start", "windows"] = Field(
        "error",
        description="Too-long inputs when a request does not say: refuse, cut off the end or the start, or read all of "
        "it in overlapping windows and average.",
    )
    vector_cache_bytes: int = Field(
        64 * 1024 * 1024,
        ge=0,
        description="Memory for vectors of texts that were run before, of all models together; 0 keeps none.",
    )

    served_model_name: str | None = Field(
        None, min_length=1, description="Name to serve the model under instead of its own."
    )
    model_aliases: TextList = Field(
        default_factory=list, description="Further names for the model, comma-separated."
    )
    aliases: AliasTable = Field(
        default_factory=dict,
        description="Further names that stand for a prompt or dimensions too, for clients that can send neither: a "
        "table in the TOML file, or JSON.",
    )
    openai_aliases: bool = Field(
        True, description="Answer to text-embedding-ada-002, -3-small and -3-large as well."
    )
    adapters: AdapterTable = Field(
        default_factory=dict,
        description="Folders of LoRA adapters by the task that asks for each: a table in the TOML file, or JSON.",
    )
    max_models_bytes: int = Field(
        0,
        ge=0,
        description="What loaded models may take together (graphs and weights); idle ones are unloaded, least recently "
        "used first, and loaded again when meant. 0: no bound.",
    )
    admin_api: bool = Field(
        False, description="Routes to load and unload models (/admin/models); they need a key."
    )
    accept_any_model: bool = Field(False, description="Answer to any model name.")
    model_revision: str = Field("", description="Hub commit, tag or branch to pin.")
    models_dir: UserPath | None = Field(
        None, description="Folder with your own model cards, looked into first."
    )
    offline: bool = Field(
        False, description="Never use the network; the cache must have the model."
    )
    max_input_tokens: int | None = Field(
        None, ge=3, description="Take fewer tokens an input than the model could."
    )

    calibration_file: UserPath | None = Field(
        None,
        description="Texts, one a line, that set the ranges of the int8 precisions, instead of the bundled ones.",
    )
    quantize_compat: Literal["nestvec", "sentence-transformers"] = Field(
        "nestvec",
        description="How int8 and uint8 vectors are rounded: down, in ranges with a margin, or as "
        "sentence-transformers casts them.",
    )
    weight_storage: Literal["fp32", "fp16"] = Field(
        "fp32",
        description="How exported weights are stored: fp16 halves them on disk; they are computed with as fp32.",
    )

    vector_cache_dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="How kept vectors are stored: float16 keeps twice as many, and rounds every vector.",
    )
    vector_cache_file: UserPath | None = Field(
        None,
        description="Also keep vectors in this SQLite file, across restarts; it holds no texts.",
    )
    vector_cache_file_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=1024 * 1024,
        description="Size of that file; the oldest vectors go first.",
    )
    allow_untrained_layers: bool = Field(
        False,
        description="Serve early exits (`layers`) that the model was neither trained nor fitted for.",
    )

    device_id: int = Field(0, ge=0, description="GPU, as CUDA counts them.")
    device_ids: IdList = Field(
        default_factory=list,
        description="GPUs to serve on together, comma-separated, each by an engine process of its own (needs "
        "http_processes); default: device_id alone.",
    )
    gpu_memory_utilization: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Part of the GPU's memory that all models of a process may take together.",
    )
    gpu_captured_tokens: int = Field(
        4096,
        ge=0,
        le=65_536,
        description="On a GPU, batches up to this many tokens are filled up to one of a few sizes whose launches were "
        "captured at the start (CUDA graphs); 0: none.",
    )
    worker_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that run batches; 0: as tuned, else one a CPU, or 3 for a GPU.",
    )
    intra_op_threads: int = Field(
        0, ge=0, le=1024, description="Threads inside one batch; 0: as tuned, else 1."
    )
    lone_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads for a text that is alone on an idle server (a second session with weights of its own); "
        "1: none apart; 0: as tuned, else up to 4, and 1 for models over 256 MB.",
    )
    plain_attention_tokens: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Rows of several lengths up to this many tokens take plain attention instead of the contrib "
        "kernel; default: as tuned, else 128.",
    )
    front_threads: int = Field(
        0, ge=0, le=1024, description="Threads that tokenise and encode; 0: one a CPU."
    )
    lookahead_items: int = Field(
        1024, ge=1, le=100_000, description="How many waiting inputs may be sorted by length."
    )
    max_batch_ms: int = Field(
        250,
        ge=1,
        description="Micro-batches are cut so as not to take longer, once their cost has been learned.",
    )
    max_queue_tokens: int = Field(
        500_000, ge=1, description="Tokens that may wait; beyond it requests get 429."
    )

    http_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes for HTTP, beside one for the engine that is started again when it dies; 0: one for all.",
    )
    batch_timeout_s: float = Field(
        120.0,
        gt=0,
        description="A micro-batch that takes longer than this, and ten times as long as predicted, hangs: readiness "
        "goes off, and the engine's process is ended and started again (by the orchestrator, if http_processes is 0).",
    )

    interactive_inputs: int = Field(
        16,
        ge=0,
        description="Requests of more inputs are bulk: they let smaller ones pass, at a guaranteed share.",
    )
    max_inputs_per_request: int = Field(2048, ge=1, description="Most inputs in one request.")
    max_tokens_per_request: int = Field(
        300_000, ge=1, description="Most tokens in one request, counted after truncation."
    )
    max_token_vectors_per_request: int = Field(
        16_384, ge=1, description="Most token vectors in one answer (`/embed_all`, multi-vectors)."
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest request body, after decompression."
    )
    max_in_flight_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Most bytes of bodies of requests under way, decompressed, in each HTTP process; beyond it 429.",
    )
    max_json_depth: int = Field(
        32, ge=4, le=500, description="Deepest nesting of a JSON body; deeper ones get 400."
    )
    max_connections: int = Field(
        2048,
        ge=1,
        description="Most open connections of each HTTP process, no more than open files allow; further ones get 503.",
    )
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, description="Largest request line and headers; beyond it 431."
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="How long a caller may take over the headers of a request."
    )
    min_bytes_per_s: int = Field(
        1024,
        ge=0,
        description="Callers that send a body, or read an answer, more slowly over ten seconds are hung up on.",
    )
    max_file_bytes: int = Field(
        512 * 1024 * 1024, ge=1024, description="Largest upload to /v1/files."
    )
    max_stored_bytes: int = Field(
        20 * 1024 * 1024 * 1024, ge=1024, description="What the files of one key may take in all."
    )
    max_batch_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Largest input file of a batch."
    )
    max_batch_requests: int = Field(
        50_000, ge=1, description="Most requests, and most inputs over all of them, in a batch."
    )
    request_timeout_s: float = Field(
        55.0, gt=0, le=3600, description="Answer 504 after so long; callers may ask for less."
    )
    token_input: Literal["auto", "cl100k", "model", "reject"] = Field(
        "auto",
        description="Vocabulary of token arrays: cl100k (decoded to text), the model's own, or refused; "
        "auto: cl100k if its table can be had, else refused.",
    )
    cl100k_file: UserPath | None = Field(
        None, description="cl100k_base.tiktoken for hosts where tiktoken cannot download it."
    )
    allow_empty_inputs: bool = Field(
        True, description="Embed empty strings (as langchain needs) instead of refusing them."
    )
    tei_compat: Literal["1.8", "1.9"] = Field(
        "1.9",
        description="Which Text Embeddings Inference the TEI routes behave as: 1.9 cuts long inputs unless told not to "
        "and refuses with 422, 1.8 refuses them, with 413.",
    )
    reject_unknown_fields: bool = Field(
        False, description="Refuse request fields that we do not know."
    )

    trusted_hosts: TextList = Field(
        default_factory=list,
        description="Host names that requests may be for, comma-separated, `*.example.org` too; none: any.",
    )
    trusted_proxies: TextList = Field(
        default_factory=list,
        description="Addresses and networks of proxies whose X-Forwarded-For and -Proto are believed, comma-separated.",
    )
    root_path: str = Field(
        "",
        description="Path under which a proxy serves us, if it takes that off before it passes requests on.",
    )
    cors_origins: TextList = Field(
        default_factory=list,
        description="Origins whose pages may call from a browser, comma-separated; `*`: any; none: no page.",
    )
    operations_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="A port of its own for /metrics and /admin, which are then not on the common one; 0: none.",
    )
    operations_host: str = Field(
        "", description="Address of that port, if it is another than `host`."
    )
    protect_operations: bool = Field(
        False, description="Ask for a key on /metrics too, and switch /docs off."
    )
    drain_grace_s: float = Field(
        1.0,
        ge=0,
        le=300,
        description="After SIGTERM, serve so long with readiness off before closing the port.",
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, le=3600, description="Then wait so long for requests in flight."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event to log."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON lines."
    )

    # What `settings_loading` read them from, to read them again: values of flags, and the file.
    _origin: tuple[dict[str, Any], Path | None] = PrivateAttr(default=({}, None))

    @property
    def origin(self) -> tuple[dict[str, Any], Path | None]:
        """Values of flags, and the file, that they were read from."""
        return self._origin

    def came_from(self, flags: dict[str, Any], file: Path | None) -> None:
        """Remember that."""
        self._origin = (flags, file)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the TOML file."""
        file = TomlConfigSettingsSource(settings_cls, config_file.get())
        return init_settings, env_settings, file

    def of_models(self) -> dict[str, Self]:
        """Each model's settings, by the name that it has here; the first is `model` itself, by "".

        A model's `served_model_name` is its name in the table, unless that is its source.
        """
        found = {"": self._with_pins(None)}
        for name, one in self.models.items():
            given = {
                "precision": one.precision,
                "max_input_tokens": one.max_input_tokens,
                "max_batch_tokens": one.max_batch_tokens,
                "worker_threads": one.worker_threads,
            }
            found[name] = self._with_pins(name).model_copy(
                update={
                    **{key: value for key, value in given.items() if value is not None},
                    "model": one.model,
                    "served_model_name": None if name == one.model else name,
                    "model_aliases": one.aliases,
                    "model_revision": one.revision,
                    "adapters": one.adapters,
                    "openai_aliases": False,
                }
            )
        return found

    def _with_pins(self, name: str | None) -> Self:
        """The same with the names only that stand for one model."""
        own = {alias: pin for alias, pin in self.aliases.items() if pin.model == name}
        return self.model_copy(update={"aliases": own})

    def for_own_work(self) -> Self:
        """The same without bounds that protect callers from each other: in a process whose only caller is ourselves."""
        most = 2**40
        return self.model_copy(
            update={
                "max_tokens_per_request": most,
                "max_queue_tokens": most,
                "max_batch_ms": 60_000,
                "vector_cache_bytes": 0,
                "models": {},
                "adapters": {},
            }
        )

    @property
    def cores(self) -> int:
        """How many engine processes there are beside those of HTTP."""
        return max(1, len(self.device_ids))

    def of_core(self, number: int) -> Self:
        """The same for one of them."""
        device = self.device_ids[number] if self.device_ids else self.device_id
        return self.model_copy(update={"device_id": device, "device_ids": []})

    @property
    def keys_path(self) -> Path:
        """Where keys with limits are, if there are any."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def secrets(self) -> tuple[str, ...]:
        """All keys, from the list and the file.

        Raises:
            ConfigError: The file cannot be read.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text("utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise ConfigError([f"api_keys_file: cannot be read ({error})"]) from error
            keys += [line.strip() for line in lines if line.strip() and line[0] != "#"]
        return tuple(keys)
