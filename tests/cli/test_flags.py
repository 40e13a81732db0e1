"""Flags that do more than set the setting of their name."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from nestvec.cli.corpus.embed_flags import corpus_flags, corpus_job
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings


@click.command()
@settings_flags("model", "models")
def several_models(settings: Settings) -> None:
    """Show the models of a command that takes several."""
    click.echo(f"{settings.model} {list(settings.models)}")


@click.command()
@settings_flags("model")
def one_model(settings: Settings) -> None:
    """Show the model of a command that takes one."""
    click.echo(settings.model)


def test_a_model_given_several_times() -> None:
    """The first is the model, the others are further models."""
    done = CliRunner().invoke(several_models, ["--model", "a", "--model", "b", "--model", "c"])
    assert done.output == "a ['b', 'c']\n"
    assert CliRunner().invoke(several_models, ["--model", "a"]).output == "a []\n"


@pytest.mark.parametrize("arguments", [["--model", "a", "--model", "b", "--models", "c"]])
def test_not_in_both_ways(arguments: list[str]) -> None:
    """Further models given by --model and by --models are refused, as some would be lost."""
    done = CliRunner().invoke(several_models, arguments)
    assert done.exit_code == 2
    assert "not by both" in done.output


def test_commands_of_one_model_take_one() -> None:
    """A second --model is refused where a command takes one."""
    done = CliRunner().invoke(one_model, ["--model", "a", "--model", "b"])
    assert (done.exit_code, "one --model" in done.output) == (2, True)


@click.command()
@click.argument("source")
@click.argument("target")
@corpus_flags
def what_is_asked(source: str, target: str, **flags: Any) -> None:
    """Show the prompt that texts get."""
    options = corpus_job((source,), target, flags).options
    click.echo(f"{options.prompt_name} {options.prompt_role}")


@pytest.mark.parametrize(
    ("target", "flags", "asked"),
    [
        ("vectors.npy", [], "None None"),
        ("qdrant://./points/docs", [], "None passage"),
        ("vectors.faiss", [], "None passage"),
        ("vectors.faiss", ["--prompt-name", "s2s"], "s2s None"),
    ],
)
def test_texts_of_a_store_are_passages(
    tmp_path: Path, target: str, flags: list[str], asked: str
) -> None:
    """They are searched by queries, which get the model's prompt for those: the other half of it belongs to them."""
    (tmp_path / "a.txt").write_text("alpha")
    done = CliRunner().invoke(what_is_asked, [str(tmp_path / "a.txt"), target, *flags])
    assert done.output == f"{asked}\n"
