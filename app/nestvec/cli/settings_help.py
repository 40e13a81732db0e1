"""The help of commands with a flag for every setting: the usual ones first, the others by topic."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click
from pydantic import BaseModel
from typing_extensions import override

from nestvec.config.settings import DOCUMENTED_FIRST, Settings


class SettingOption(click.Option):
    """The flag of a setting, which knows the setting's name."""

    def __init__(self, *args: Any, setting: str, **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self.setting = setting


class SettingsHelp(click.Command):
    """A command with a flag for every setting: `--help` describes the usual ones and names the others by topic.

    `--help-all` describes all of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show this message with every setting described, by topic, and exit.",
            )
        )

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the settings."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        own = [option for option in options if not isinstance(option, SettingOption)]
        settings = {o.setting: o for o in options if isinstance(o, SettingOption)}
        _section(ctx, formatter, "Options", own)
        usual = [settings.pop(name) for name in DOCUMENTED_FIRST if name in settings]
        _section(ctx, formatter, "What is usually set", usual)
        if ctx.meta.get(_show_all.__name__) is None:
            with formatter.section("More settings, which --help-all describes"):
                for topic, names in _topics(settings):
                    _names(formatter, topic, [settings[name].opts[0] for name in names])
        else:
            for topic, names in _topics(settings):
                _section(ctx, formatter, topic, [settings[name] for name in names])


class SettingsCommand(SettingsHelp):
    """A single command of this kind."""


class SettingsGroup(SettingsHelp, click.Group):
    """A group of this kind, which is a command by itself."""

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the group's verbs, then its options and the settings."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def _show_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's own
    """Show the whole help, where it is asked for."""
    if value and not ctx.resilient_parsing:
        ctx.meta[_show_all.__name__] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _section(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, options: Sequence[click.Option]
) -> None:
    rows = [record for option in options if (record := option.get_help_record(ctx)) is not None]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _topics(settings: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """The topics of settings, as the groups that declare them put it, each with those that are there."""
    groups = [base for base in Settings.__bases__ if issubclass(base, BaseModel)]
    topics = []
    for group in groups:
        names = [name for name in group.model_fields if name in settings]
        title = " ".join((group.__doc__ or "").split()).split(".")[0]
        if names and group.__module__.startswith("nestvec."):
            topics.append((title, names))
    return topics


def _names(formatter: click.HelpFormatter, topic: str, flags: Sequence[str]) -> None:
    """Write a topic and its flags, none of which is broken over two lines."""
    indent = " " * (formatter.current_indent + formatter.indent_increment)
    formatter.write(f"{' ' * formatter.current_indent}{topic}\n")
    text = textwrap.fill(
        " ".join(flags),
        formatter.width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    formatter.write(f"{text}\n")
