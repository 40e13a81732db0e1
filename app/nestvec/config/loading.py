"""Reads the settings from flags, environment and file, and reports all of their problems at once.

Each problem names its setting as it was spelt where it was set; misspelt `NESTVEC_` names count as problems.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from nestvec.config.groups.server import is_kubernetes_port
from nestvec.config.recipe_settings import recipe_problems
from nestvec.config.settings import (
    CONFIG_VARIABLE,
    KEY_FILE_VARIABLE,
    PREFIX,
    URL_VARIABLE,
    Settings,
    config_file,
)
from nestvec.errors import ConfigError
from nestvec.keys.key_file_watch import problems_at_start, settings_problems
from nestvec.keys.records import KeyFile

# What Kubernetes injects for Services named "nestvec" and "nestvec-…": variables of these names, and NESTVEC_…PORT with
# a URL (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
KUBERNETES: Final = re.compile(
    r"NESTVEC_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
HOMELESS: Final = (
    "cache_dir, data_dir: this user has no home folder, where they lie by default (HOME is not set); set HOME, or both "
    "of them"
)


def as_flag(name: str) -> str:
    """Spell a setting as a flag of the command line."""
    return f"--{name.replace('_', '-')}"


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    spell: Callable[[str], str] = as_flag,
) -> Settings:
    """Read settings from flags, environment and file.

    Args:
        flags: Values by setting name, from the command line.
        config: TOML file; `NESTVEC_CONFIG` by default.
        spell: How whoever gave `flags` calls a setting, for the problems.

    Raises:
        ConfigError: Some settings are wrong; it lists every problem.
    """
    env = os.environ
    file = config or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
    problems = _misspelt(env)
    if file is not None and not file.is_file():
        raise ConfigError([*problems, f"config: {file} does not exist"])
    token = config_file.set(file)
    try:
        settings, invalid_values = _read(dict(flags or {}), spell)
    except (
        RuntimeError
    ) as error:  # pathlib's, where neither HOME nor the user's entry in /etc/passwd says it
        raise ConfigError([*problems, HOMELESS]) from error
    except ValueError as error:  # the TOML file does not parse
        raise ConfigError([*problems, f"config: {file}: {error}"]) from error
    finally:
        config_file.reset(token)
    problems += invalid_values
    if settings is not None:
        problems += _cross_check(settings)
    if problems or settings is None:
        raise ConfigError(problems)
    settings.remember_origin(dict(flags or {}), file)
    return settings


def check_to_serve(settings: Settings) -> None:
    """Check what only a server needs: that the keys which it asks for, or has asked for, are there.

    Raises:
        ConfigError: Their file is missing or damaged, or a server that others reach has had keys and has none.
    """
    path, data_dir = settings.keys_path, settings.data_dir
    problems = problems_at_start(path, is_named=settings.keys_file is not None, data_dir=data_dir)
    if not settings.is_loopback:
        has_keys = bool(settings.secrets)
        problems += settings_problems(has_keys=has_keys, has_file=path.exists(), data_dir=data_dir)
    if problems:
        raise ConfigError(problems)


def reload_settings(settings: Settings) -> Settings:
    """Read settings again from the flags and the file that they came from, and from the environment.

    Raises:
        ConfigError: Some settings are wrong; it lists every problem.
    """
    flags, file = settings.origin
    return load_settings(flags, config=file)


def _read(flags: dict[str, Any], spell: Callable[[str], str]) -> tuple[Settings | None, list[str]]:
    """Read settings, with bad values replaced by defaults so that checks across settings still run.

    Returns:
        The settings, and a problem for each bad value; None for the settings where no default helps.
    """
    try:
        return Settings(**flags), []
    except ValidationError as error:
        details = error.errors()
    problems = [_describe(dict(detail), flags, spell) for detail in details]
    bad_names = {str(detail["loc"][0]) for detail in details} & set(Settings.model_fields)
    defaults = {
        name: Settings.model_fields[name].get_default(call_default_factory=True)
        for name in bad_names
    }
    try:
        return Settings(**{**flags, **defaults}), problems
    except ValidationError:  # an unknown key of the file stays in the way
        return None, problems


def _misspelt(env: Mapping[str, str]) -> list[str]:
    """Problems of variables that begin with `NESTVEC_` and are no settings."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {
        CONFIG_VARIABLE,
        URL_VARIABLE,
        KEY_FILE_VARIABLE,
    }
    problems = []
    for name in sorted(env):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or not env[name]:
            continue
        if KUBERNETES.fullmatch(upper) or is_kubernetes_port(env[name]):
            continue
        close = difflib.get_close_matches(upper, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        problems.append(f"{name}: no such setting{hint}")
    return problems


def _describe(
    detail: Mapping[str, Any], flags: Mapping[str, Any], spell: Callable[[str], str]
) -> str:
    """Describe a problem by the name of where the value was set: the flag, the variable or the file's key."""
    name, *inner_keys = map(str, detail["loc"])
    suffix = "".join(f".{key}" for key in inner_keys)
    if name in flags:
        spelled = f"{spell(name)}{suffix}"
    elif any(key.upper() == PREFIX + name.upper() for key in os.environ):
        spelled = f"{PREFIX}{name.upper()}{suffix}"
    else:
        spelled = f"{name}{suffix} (in the configuration file)"
    if detail["type"] == "extra_forbidden" and inner_keys:
        return f"{spelled}: no such setting"
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"{spelled}: no such setting" + (f"; did you mean {close[0]}?" if close else "")
    return f"{spelled}: {detail['msg']}"


def _cross_check(settings: Settings) -> list[str]:
    """Problems that show only across several settings."""
    problems: list[str] = []
    keys: tuple[object, ...] = ()
    admin_keys: tuple[object, ...] = settings.admin_secrets
    try:
        keys = settings.secrets
    except ConfigError as error:
        problems += error.problems
    try:
        records = KeyFile.read(settings.keys_path).records
        keys = (*keys, *records)
        admin_keys += tuple(record.id for record in records.values() if record.is_admin)
    except ConfigError:
        # It has keys, though none can be read: nobody will be let in. `check_to_serve` says why.
        keys = admin_keys = (settings.keys_path,)
    if not settings.is_loopback and not keys and not settings.allow_unauthenticated:
        problems.append(
            f"host: {settings.host} is reachable from outside and no API key is set; set api_keys, or "
            "allow_unauthenticated where something else guards the port"
        )
    if settings.device_ids and not settings.http_processes:
        problems.append(
            "device_ids: each GPU has a process of its own; set http_processes to 1 or more"
        )
    if len(set(settings.device_ids)) < len(settings.device_ids):
        problems.append("device_ids: a GPU is named twice")
    return problems + _check_models(settings, has_admin_keys=bool(admin_keys))


def _check_models(settings: Settings, *, has_admin_keys: bool) -> list[str]:
    """Problems of the table of models and the names in it, and of the routes that manage models."""
    problems = []
    for name, alias in settings.aliases.items():
        if alias.model is not None and alias.model not in settings.models:
            known = ", ".join(settings.models) or "none"
            problems.append(f"aliases.{name}.model: no such table of models; there are: {known}")
    owners: dict[str, str] = {}
    first_names = [settings.served_model_name or settings.model, *settings.model_aliases]
    further_names = [(name, [name, *model.aliases]) for name, model in settings.models.items()]
    for owner, names in (
        ("model", first_names),
        *further_names,
        ("aliases", list(settings.aliases)),
    ):
        problems += [
            f"models: the name '{name}' is given to two models"
            for name in names
            if owners.setdefault(name.casefold(), owner) != owner
        ]
    problems += recipe_problems(settings.recipes, _names_of_models(settings), first_names[0])
    if settings.admin_api and not has_admin_keys:
        problems.append(
            "admin_api: needs a key with the admin right; make one with 'nestvec keys add NAME --admin', or set "
            "admin_keys"
        )
    return problems


def _names_of_models(settings: Settings) -> dict[str, str]:
    """Return every name that the settings give a model, in lower case, with the table that gives it."""
    names: dict[str, str] = {}
    for table, of_model in settings.per_model().items():
        first = of_model.served_model_name or of_model.model
        tasks = [f"{first}:{task}" for task in of_model.adapters]
        for name in (first, of_model.model, *of_model.model_aliases, *of_model.aliases, *tasks):
            names.setdefault(name.casefold(), table)
    return names
