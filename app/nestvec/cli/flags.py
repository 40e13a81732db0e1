"""Command-line flags made from the settings, so that the two never differ."""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nestvec.cli.settings_help import SettingOption
from nestvec.config.loading import load_settings
from nestvec.config.settings import PREFIX, Settings

Function = Callable[..., None]

# What stands for a value in `--help`, by the last word of a setting's name.
UNITS: Final[Mapping[str, str]] = {
    "s": "SECONDS",
    "ms": "MILLISECONDS",
    "bytes": "BYTES",
    "tokens": "TOKENS",
    "characters": "CHARACTERS",
    "dir": "FOLDER",
    "file": "FILE",
    "host": "ADDRESS",
    "port": "PORT",
    "url": "URL",
    "name": "NAME",
}
METAVARS: Final[Mapping[str, str]] = {
    "gpu_memory_utilization": "SHARE",
    "min_bytes_per_s": "BYTES",
    "model_revision": "REVISION",
    "models": "A,B|JSON",
    "root_path": "PATH",
}


def settings_flags(*names: str) -> Callable[[Function], Function]:
    """Make a decorator that adds `--config` and a flag for each named setting; without names, for all settings.

    The decorated function gets `settings` in place of the flags.
    """
    setting_names = names or tuple(Settings.model_fields)

    def decorate(function: Function) -> Function:
        def wrapped(*args: Any, **values: Any) -> None:  # noqa: ANN401 - click passes what the flags hold
            config: Path | None = values.pop("config")
            flags = {name: values.pop(name) for name in setting_names}
            flags = {name: value for name, value in flags.items() if value is not None}
            sources, models = flags.pop("model", ()), flags.get("models")
            flags |= _model_flags(sources, models, takes_several="models" in setting_names)
            function(*args, settings=load_settings(flags, config=config), **values)

        wrapped.__doc__ = function.__doc__
        wrapped.__name__ = function.__name__
        # Arguments and options that click has put on the function already go along.
        wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined] # click's own way
        for name in reversed(setting_names):
            takes_several = "models" in setting_names
            wrapped = _option(name, Settings.model_fields[name], takes_several=takes_several)(
                wrapped
            )
        return click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="TOML file with settings  [env: NESTVEC_CONFIG]",
        )(wrapped)

    return decorate


def default_text(field: FieldInfo) -> str:
    """A setting's default as people would write it; "" for none."""
    value = field.default
    if value is PydanticUndefined or value is None or value == "":
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _model_flags(
    sources: Sequence[str], models: str | None, *, takes_several: bool
) -> dict[str, Any]:
    """Values of `model` and `models` where `--model` was given, perhaps several times.

    The first is the model, the others are further models.

    Raises:
        click.UsageError: Several were given to a command of one model, or together with `--models`.
    """
    if not sources:
        return {}
    flags: dict[str, Any] = {"model": sources[0]}
    if len(sources) > 1:
        if not takes_several:
            raise click.UsageError("this command takes one --model")
        if models is not None:
            raise click.UsageError("give further models by --model or by --models, not by both")
        flags["models"] = ",".join(sources[1:])
    return flags


def _option(name: str, field: FieldInfo, *, takes_several: bool) -> Callable[[Function], Function]:
    """Make the click option of a setting.

    Args:
        name: The setting's name.
        field: Its type, default and description.
        takes_several: Whether the command serves several models.
    """
    flag = f"--{name.replace('_', '-')}"
    default = default_text(field)
    text = f"{field.description}" + (f"  [default: {default}]" if default else "")
    text += f"  [env: {PREFIX}{name.upper()}]"
    kind = partial(click.option, cls=SettingOption, setting=name)
    if name == "model":
        text += "; may be repeated to serve several" if takes_several else ""
        return kind(flag, name, multiple=True, metavar="NAME", help=text)
    if field.annotation is bool:
        return kind(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    # Values stay strings: the settings check them, so a flag and a variable fail with the same words.
    return kind(flag, name, default=None, metavar=_metavar(name, field.annotation), help=text)


def _metavar(name: str, annotation: Any) -> str:  # noqa: ANN401 - any annotation
    """What `--help` shows in place of a setting's value: its choices, else its unit, else its type."""
    if typing.get_origin(annotation) is typing.Literal:
        return "[" + "|".join(map(str, typing.get_args(annotation))) + "]"
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
        return _metavar(name, annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if name in METAVARS:
        return METAVARS[name]
    if typing.get_origin(annotation) is dict:
        return "JSON"
    if typing.get_origin(annotation) is list:
        return "N,N" if int in map(_plain, typing.get_args(annotation)) else "A,B"
    unit = name.rpartition("_")[2]
    by_type = {int: "N", float: "NUMBER", Path: "PATH"}
    return UNITS.get(unit, by_type.get(annotation, "TEXT"))


def _plain(annotation: Any) -> Any:  # noqa: ANN401 - any annotation
    """A type without what is annotated to it."""
    is_annotated = typing.get_origin(annotation) is typing.Annotated
    return typing.get_args(annotation)[0] if is_annotated else annotation
