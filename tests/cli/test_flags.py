"""Flags that are more than a setting's name."""

import click
import pytest
from click.testing import CliRunner
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings


@click.command()
@settings_flags("model", "models")
def several(settings: Settings) -> None:
    """Shows them."""
    click.echo(f"{settings.model} {list(settings.models)}")


@click.command()
@settings_flags("model")
def one(settings: Settings) -> None:
    """Shows it."""
    click.echo(settings.model)


def test_a_model_given_several_times() -> None:
    """The first is the model, the others stand beside it."""
    done = CliRunner().invoke(several, ["--model", "a", "--model", "b", "--model", "c"])
    assert done.output == "a ['b', 'c']\n"
    assert CliRunner().invoke(several, ["--model", "a"]).output == "a []\n"


@pytest.mark.parametrize("arguments", [["--model", "a", "--model", "b", "--models", "c"]])
def test_not_in_both_ways(arguments: list[str]) -> None:
    """One would be lost."""
    done = CliRunner().invoke(several, arguments)
    assert done.exit_code == 2
    assert "not by both" in done.output


def test_commands_of_one_model_take_one() -> None:
    """None is dropped silently."""
    done = CliRunner().invoke(one, ["--model", "a", "--model", "b"])
    assert (done.exit_code, "one --model" in done.output) == (2, True)
