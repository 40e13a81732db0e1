"""`nestvec config`: shows the settings, or writes their documentation."""

from dataclasses import asdict
from typing import Final

import click

from nestvec.cli.flags import default_text, settings_flags
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


@click.command("config")
@click.option("--markdown", is_flag=True, help="Print the documentation of all settings instead.")
@settings_flags()
def command(settings: Settings, *, markdown: bool) -> None:
    """Print the settings as they would be used; keys are masked."""
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    bounds = asdict(memory_bounds(settings))
    effective = {setting: bounds[bound] for bound, setting in SETTING_OF.items()}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        is_derived = name in effective and not value
        click.echo(f"{name} = {value}" + (f"  # here: {effective[name]}" if is_derived else ""))


def settings_markdown() -> str:
    """The documentation of all settings, a page with a table."""
    rows = []
    for name, field in Settings.model_fields.items():
        flag, variable = f"--{name.replace('_', '-')}", f"{PREFIX}{name.upper()}"
        default = f"`{default_text(field)}`" if default_text(field) else ""
        rows.append(f"| `{name}` | `{flag}` | `{variable}` | {default} | {field.description} |")
    return PAGE_HEAD + "\n".join(rows) + "\n"
