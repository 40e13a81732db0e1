"""Settings as people read and write them: as TOML, with where each value came from."""

import json
import os
import textwrap
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from nestvec.config.loading import as_flag
from nestvec.config.settings import CONFIG_VARIABLE, PREFIX, Settings

DEFAULT: Final = "default"
MASK: Final = "**********"
LINE_CHARS: Final = 100
FILE_HEAD: Final = f"""# Settings of `nestvec serve`, which takes this file by --config or {CONFIG_VARIABLE}.
# Flags and {PREFIX}* variables win over it; `nestvec config` tells what is in force.
# A line that begins with # is not in force, and shows the default.
"""


def value_sources(settings: Settings) -> dict[str, str]:
    """Return where each setting's value came from: its flag, its variable, the file, or "default"."""
    flags, file = settings.origin
    variables = {name.upper(): name for name, value in os.environ.items() if value}
    in_file: Mapping[str, Any] = {}
    if file is not None:
        with suppress(OSError, ValueError):  # it was read a moment ago
            in_file = tomllib.loads(file.read_text("utf-8"))
    sources = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        if name in flags:
            sources[name] = as_flag(name)
        elif variable in variables:
            sources[name] = variables[variable]
        else:
            sources[name] = str(file) if name in in_file else DEFAULT
    return sources


def toml_value(value: object) -> str | None:  # noqa: PLR0911 - a line a type
    """Write a setting's value as TOML, secrets masked; None for no value, which TOML cannot say."""
    if value is None:
        return None
    if isinstance(value, SecretStr):
        return json.dumps(MASK if value.get_secret_value() else "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, BaseModel):
        return toml_value(value.model_dump(exclude_defaults=True))
    if isinstance(value, Mapping):
        texts = {key: toml_value(part) for key, part in value.items()}
        pairs = [f"{json.dumps(key)} = {text}" for key, text in texts.items() if text is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(text for part in value if (text := toml_value(part))) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def settings_toml(settings: Settings) -> str:
    """Return a file with the settings that are not the defaults; keys are left out, with a line that says so."""
    sources = value_sources(settings)
    lines = [
        f"# what is not the default here; {CONFIG_VARIABLE} or --config names a file like this"
    ]
    for name, source in sources.items():
        if source == DEFAULT:
            continue
        value = getattr(settings, name)
        text = toml_value(value)
        if text is None or MASK in text:
            lines.append(f"# {name}: a secret, from {source}")
        else:
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"


def commented_toml() -> str:
    """Return a file with every setting, commented out, under its topic and with its description."""
    groups = [base for base in Settings.__bases__ if issubclass(base, BaseModel)]
    lines = [FILE_HEAD]
    for group in groups:
        names = [name for name in group.model_fields if name in Settings.model_fields]
        if not names or not group.__module__.startswith(__package__):
            continue
        title = " ".join((group.__doc__ or "").split())
        lines += [f"# --- {title}", ""]
        for name in names:
            lines += [*_wrapped(Settings.model_fields[name].description or ""), *_line(name), ""]
    return "\n".join(lines)


def _line(name: str) -> list[str]:
    """The line of a setting: its default, or only its name where it has none."""
    text = toml_value(_default(Settings.model_fields[name]))
    return [f"#{name} =" if text is None else f"#{name} = {text}"]


def _default(field: FieldInfo) -> object:
    value = field.get_default(call_default_factory=True)
    # Of this user, though the default is any user's.
    home = str(Path.home())
    text = str(value)
    return (
        text.replace(home, "~", 1) if isinstance(value, Path) and text.startswith(home) else value
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        LINE_CHARS,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )
