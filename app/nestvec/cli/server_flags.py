"""The flags of verbs that talk to a running server: where it is, with which key, and which of its models."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from nestvec.config.settings import KEY_FILE_VARIABLE, URL_VARIABLE, Settings

DEFAULT_URL: Final = "http://127.0.0.1:8080"
# OpenAI's clients read it, so that it may be set already.
KEY_VARIABLE: Final = "OPENAI_API_KEY"
Function = Callable[..., None]


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where requests go, and with which key.

    Attributes:
        url: Base URL of the server, without a slash or /v1 at its end; "" for none.
        key: Its API key; "" for none.
        model: Which of its models; "" for the one that it takes by itself.
    """

    url: str
    key: str
    model: str = ""


def server_flags(
    *, help_of_url: str, default_url: str = "", takes_model: bool = True
) -> Callable[[Function], Function]:
    """Make a decorator that adds `--url`, `--key-file` and `--server-model`.

    The decorated function gets `server`, a `ServerAddress`, in place of the flags.

    Args:
        help_of_url: What the verb does with a server.
        default_url: The server where none is named.
        takes_model: Whether the verb asks for one of the server's models.
    """

    def decorate(function: Function) -> Function:
        def wrapped(*args: Any, url: str, key_file: Path | None, **values: Any) -> None:  # noqa: ANN401 - click's own
            model = values.pop("server_model", None) or ""
            base = url.rstrip("/").removesuffix("/v1")
            function(*args, server=ServerAddress(base, _key(key_file), model), **values)

        wrapped.__doc__ = function.__doc__
        wrapped.__name__ = function.__name__
        wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined] # click's own way
        if takes_model:
            wrapped = click.option(
                *("--server-model", "--model-name"),
                metavar="NAME",
                help="Which of the server's models; the one that it takes by itself if left out.",
            )(wrapped)
        wrapped = click.option(
            "--key-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar=KEY_FILE_VARIABLE,
            metavar="FILE",
            help=f"File with the server's API key; else {KEY_VARIABLE} holds it.  [env: {KEY_FILE_VARIABLE}]",
        )(wrapped)
        default = f"  [default: {default_url}]" if default_url else ""
        return click.option(
            "--url",
            envvar=URL_VARIABLE,
            default=default_url,
            metavar="URL",
            help=f"{help_of_url}{default}  [env: {URL_VARIABLE}]",
        )(wrapped)

    return decorate


def check_one_model(server: ServerAddress, settings: Settings) -> None:
    """Refuse a model of this machine together with a server, which has models of its own.

    Raises:
        click.UsageError: Both are named.
    """
    flags, _ = settings.origin
    if server.url and "model" in flags:
        raise click.UsageError(
            f"--model is run by this process, and {server.url} was named too (--url or {URL_VARIABLE}): leave one "
            "out, or name a model of the server by --server-model"
        )


def check_recipe(recipe: str | None, server: ServerAddress, settings: Settings) -> None:
    """Refuse a recipe that the settings do not have, and one together with a server, which has recipes of its own.

    Raises:
        click.UsageError: It cannot be had here.
    """
    if recipe is not None and server.url:
        raise click.UsageError(
            f"--recipe is of this machine's settings, and {server.url} was named too (--url or {URL_VARIABLE}): name "
            "a recipe of the server by --server-model"
        )
    if recipe is not None and recipe not in settings.recipes:
        known = ", ".join(settings.recipes) or "none"
        raise click.UsageError(f"the settings have no recipe '{recipe}'; they have: {known}")


def _key(key_file: Path | None) -> str:
    """Return the key: that of the file, else that which OpenAI's clients would send."""
    if key_file is not None:
        return key_file.read_text("utf-8").strip()
    return os.environ.get(KEY_VARIABLE, "")
