"""Every setting: name with unit, default, range, help. Read once, frozen.

A flag wins over the environment (`NESTVEC_*`), the environment over the TOML file; `nestvec.config.loading` reads them.
The settings themselves are declared by topic in `nestvec.config.groups`.
"""

from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, PrivateAttr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from nestvec.config.groups.batching import BatchingSettings
from nestvec.config.groups.connections import ConnectionSettings
from nestvec.config.groups.drift import DriftSettings
from nestvec.config.groups.gpu import GpuSettings
from nestvec.config.groups.jobs import JobSettings
from nestvec.config.groups.keys import KeySettings
from nestvec.config.groups.logs import LogSettings
from nestvec.config.groups.models import ServedModelSettings
from nestvec.config.groups.precision import PrecisionSettings
from nestvec.config.groups.processes import ProcessSettings
from nestvec.config.groups.request_limits import RequestLimitSettings
from nestvec.config.groups.requests import RequestSettings
from nestvec.config.groups.server import ServerSettings
from nestvec.config.groups.vectors import VectorSettings

PREFIX: Final = "NESTVEC_"
# Read outside of `Settings`: which file to load.
CONFIG_VARIABLE: Final = "NESTVEC_CONFIG"
# Read by the verbs that talk to a running server, and no settings of a server: where it is, and the file of its key.
URL_VARIABLE: Final = "NESTVEC_URL"
KEY_FILE_VARIABLE: Final = "NESTVEC_KEY_FILE"
# Set while settings are loaded, and then alone: pydantic-settings builds its sources from the class.
config_file: ContextVar[Path | None] = ContextVar("config_file", default=None)
# What most operators set; the documentation and `--help` begin with these, and go on topic by topic.
DOCUMENTED_FIRST: Final = (
    *("model", "models", "host", "port"),
    *("api_keys", "api_keys_file", "keys_file", "allow_unauthenticated"),
    *("cache_dir", "files_api", "data_dir"),
    *("provider", "max_batch_tokens", "precision", "truncate", "vector_cache_bytes"),
)
# More than any request has: bounds for a process whose only caller is ourselves.
UNBOUNDED: Final = 2**40

S = TypeVar("S", bound=type[BaseSettings])


def in_documented_order(settings: S) -> S:
    """Put the fields of a class into the order of the documentation.

    Pydantic orders inherited fields by the reversed order of the base classes. Documentation, `--help` and the order
    in which problems are told all follow `model_fields`.
    """
    fields = settings.__pydantic_fields__
    groups = [base for base in settings.__bases__ if issubclass(base, BaseModel)]
    by_topic = [name for group in groups for name in group.__pydantic_fields__]
    settings.__pydantic_fields__ = {name: fields[name] for name in (*DOCUMENTED_FIRST, *by_topic)}
    settings.model_rebuild(force=True)
    return settings


@in_documented_order
class Settings(
    ServedModelSettings,
    PrecisionSettings,
    VectorSettings,
    GpuSettings,
    BatchingSettings,
    ProcessSettings,
    RequestLimitSettings,
    ConnectionSettings,
    JobSettings,
    RequestSettings,
    ServerSettings,
    KeySettings,
    LogSettings,
    DriftSettings,
    BaseSettings,
):
    """What an operator can set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        # Compose's `${X:-}` sets a variable to nothing where it means to set none.
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    # The values of flags and the file that the settings were read from; `reload_settings` reads them again.
    _origin: tuple[dict[str, Any], Path | None] = PrivateAttr(default=({}, None))

    @property
    def origin(self) -> tuple[dict[str, Any], Path | None]:
        """The values of flags, and the file, that the settings were read from."""
        return self._origin

    def remember_origin(self, flags: dict[str, Any], file: Path | None) -> None:
        """Note the values of flags, and the file, that the settings were read from."""
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
        """Name the sources, strongest first: flags, the environment, the TOML file."""
        toml_settings = TomlConfigSettingsSource(settings_cls, config_file.get())
        return init_settings, env_settings, toml_settings

    def per_model(self) -> dict[str, Self]:
        """Settings of each model by its name in `models`; those of the first model, `model`, by "".

        A further model's `served_model_name` is its name in the table, unless that is its source.
        """
        settings = {"": self._with_aliases_of(None)}
        for name, model in self.models.items():
            overrides = {
                "precision": model.precision,
                "max_input_tokens": model.max_input_tokens,
                "picture_patches": model.picture_patches,
                "max_batch_tokens": model.max_batch_tokens,
                "worker_threads": model.worker_threads,
                "text": model.text,
            }
            settings[name] = self._with_aliases_of(name).model_copy(
                update={
                    **{key: value for key, value in overrides.items() if value is not None},
                    "model": model.model,
                    "served_model_name": None if name == model.model else name,
                    "model_aliases": model.aliases,
                    "model_revision": model.revision,
                    "adapters": model.adapters,
                    "picture_model": model.picture_model,
                    "openai_aliases": False,
                }
            )
        return settings

    def _with_aliases_of(self, model: str | None) -> Self:
        """The same settings with those aliases only that stand for one model."""
        aliases = {name: alias for name, alias in self.aliases.items() if alias.model == model}
        return self.model_copy(update={"aliases": aliases})

    def for_offline_tools(self) -> Self:
        """The same settings without the bounds that protect callers from each other, and without a vector cache.

        They are for a process that serves nobody but the command that started it, with one model.
        """
        return self.model_copy(
            update={
                "max_inputs_per_request": UNBOUNDED,
                "max_tokens_per_request": UNBOUNDED,
                "max_pictures_per_request": UNBOUNDED,
                "max_picture_bytes": UNBOUNDED,
                "max_picture_pixels_per_request": UNBOUNDED,
                "max_queue_tokens": UNBOUNDED,
                "max_front_characters": UNBOUNDED,
                "max_queue_wait_s": float(UNBOUNDED),
                "max_batch_ms": 60_000,
                "vector_cache_bytes": 0,
                "models": {},
                "adapters": {},
                "recipes": {},
            }
        )

    @property
    def engine_count(self) -> int:
        """Number of engine processes beside the HTTP processes."""
        return max(1, len(self.device_ids))

    def for_engine(self, number: int) -> Self:
        """The same settings with the one device of an engine process."""
        device = self.device_ids[number] if self.device_ids else self.device_id
        return self.model_copy(update={"device_id": device, "device_ids": []})

    @property
    def keys_path(self) -> Path:
        """Path of the file of keys with limits, which need not exist."""
        return self.keys_file or self.data_dir / "keys.json"
