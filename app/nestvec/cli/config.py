"""`nestvec config`: shows the settings and where they come from, or writes a file or the documentation of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from nestvec.cli.flags import default_text, settings_flags
from nestvec.cli.settings_help import SettingsGroup
from nestvec.config.describing import commented_toml, settings_toml, toml_value, value_sources
from nestvec.config.memory_bounds import SETTING_OF, memory_bounds
from nestvec.config.settings import CONFIG_VARIABLE, PREFIX, Settings

PAGE_HEAD: Final = f"""# Configuration

Every setting can be given as a flag of `nestvec serve`, as an environment variable, or as a key of a TOML file
named by `--config` or `{CONFIG_VARIABLE}`. A flag wins over the environment, the environment over the file.
Wrong values and misspelt `{PREFIX}` names stop the start with all problems listed.

This page is generated: `make docs`.

| setting | flag | variable | default | what it does |
|---|---|---|---|---|
"""


@click.group("config", cls=SettingsGroup, invoke_without_command=True)
@click.option("--markdown", is_flag=True, help="Print the documentation of all settings instead.")
@click.option("--toml", is_flag=True, help="Print a TOML file with what is not the default.")
@settings_flags()
@click.pass_context
def command(context: click.Context, settings: Settings, *, markdown: bool, toml: bool) -> None:
    """Print the settings as they would be used, as TOML, and where each value comes from; keys are masked.

    `nestvec config init` writes a file with all of them, commented out.
    """
    if context.invoked_subcommand is not None:
        return
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    if toml:
        click.echo(settings_toml(settings), nl=False)
        return
    bounds = asdict(memory_bounds(settings))
    effective = {setting: bounds[bound] for bound, setting in SETTING_OF.items()}
    sources = value_sources(settings)
    for name, source in sources.items():
        value = getattr(settings, name)
        text = toml_value(value)
        line = f"# {name} =" if text is None else f"{name} = {text}"
        here = f"; here: {effective[name]}" if name in effective and not value else ""
        click.echo(f"{line}  # {source}{here}")


@command.command("init")
@click.argument(
    "file", type=click.Path(dir_okay=False, path_type=Path), default=Path("nestvec.toml")
)
def init(*, file: Path) -> None:
    """Write FILE (nestvec.toml) with every setting and what it does, commented out; an existing file stays."""
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(commented_toml())
    except FileExistsError:
        raise click.UsageError(f"{file} exists; name another file") from None
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written ({error.strerror})") from error
    click.echo(f"{file} is written; start with `nestvec serve --config {file}`")


def settings_markdown() -> str:
    """The documentation of all settings, a page with a table."""
    rows = []
    for name, field in Settings.model_fields.items():
        flag, variable = f"--{name.replace('_', '-')}", f"{PREFIX}{name.upper()}"
        default = f"`{default_text(field)}`" if default_text(field) else ""
        rows.append(f"| `{name}` | `{flag}` | `{variable}` | {default} | {field.description} |")
    return PAGE_HEAD + "\n".join(rows) + "\n"
