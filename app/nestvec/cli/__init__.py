"""The `nestvec` command: one file a verb; each parses, calls and prints.

Verbs are imported when they run, so that `--help` answers at once.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import Final

import click
from typing_extensions import override

from nestvec import __version__
from nestvec.errors import ConfigError, NestvecError
from nestvec.system.packages import imported_whole

VERBS: Final[Mapping[str, str]] = {
    "serve": "Serve a model over HTTP.",
    "embed": "Embed files and folders into files of vectors or a vector store.",
    "search": "Search a vector store that embed filled.",
    "verify": "Check a run's manifest: its signature, its inputs, what it made.",
    "batch": "Send files of requests to a running server, watch and fetch them.",
    "model": "List, fetch, check, merge and remove models; fit maps.",
    "cache": "Show and tidy the folder of fetched models and exported graphs.",
    "export": "Write a model's ONNX graph and everything beside it to a folder.",
    "bench": "Measure a running server, or the engine in process.",
    "plan": "Tell how many servers a load needs, and what they cost.",
    "doctor": "Check this machine, and where the model really runs.",
    "tune": "Find how a model runs fastest on this machine, and keep it.",
    "calibrate": "Set the ranges of int8 and uint8 vectors by texts of your own.",
    "quality": "Measure what dimensions, dtypes and early exits cost.",
    "report": "Measure whether a model's vectors can be trusted.",
    "tokens": "Report how a model's tokenizer suits texts of your own.",
    "keys": "Make, list, rotate and revoke API keys with limits.",
    "config": "Show settings and where they come from; write a file of them.",
}

# Verbs whose module lies in a folder.
MODULES: Final[Mapping[str, str]] = {
    "embed": "corpus.embed",
    "search": "corpus.search",
    "verify": "corpus.verify",
    "bench": "capacity.bench",
    "plan": "capacity.plan",
}
# What other programs call them.
SYNONYMS: Final[Mapping[str, str]] = {
    "pull": "model pull",
    "list": "model list",
    "ls": "model list",
    "show": "model show",
    "rm": "model rm",
    "run": "serve",
    "start": "serve",
    "version": "--version",
}


class LazyGroup(click.Group):
    """A group whose verbs are imported from the module of their name, or of `MODULES`, when they run."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of the verbs in the order of `VERBS`."""
        return list(VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None where there is none of that name."""
        if cmd_name not in VERBS:
            return None
        with imported_whole():
            module = importlib.import_module(f"nestvec.cli.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb of a command line.

        Raises:
            click.UsageError: There is no such verb; it names the one that was meant.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            word = args[0]
            if word in SYNONYMS:
                meant = f"No such command '{word}'. Did you mean '{SYNONYMS[word]}'?"
                raise click.UsageError(meant, ctx) from None
            # The library knows no verbs that are not imported.
            raise click.exceptions.NoSuchCommand(word, possibilities=VERBS, ctx=ctx) from None

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Describe the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from flags, from NESTVEC_* variables and from a TOML file (--config), in this order. "
    "`nestvec serve --help` shows those that matter.",
)
@click.version_option(__version__, prog_name="nestvec")
def group() -> None:
    """Nestvec: a self-hosted embedding server."""


def main() -> None:
    """Run the command; errors of ours are printed without a traceback, and give exit status 1, or 2 for settings."""
    try:
        group(prog_name="nestvec")
    except ConfigError as error:
        click.echo("nestvec: the settings are wrong:", err=True)
        for problem in error.problems:
            click.echo(f"  - {problem}", err=True)
        sys.exit(2)
    except NestvecError as error:
        click.echo(f"nestvec: {error.message}", err=True)
        sys.exit(1)
