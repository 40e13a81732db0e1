"""The flags of `nestvec embed` about a cluster of Ray, and what does not go with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
from click.core import ParameterSource
from typing_extensions import override

from nestvec.config.settings import URL_VARIABLE

FLAG: Final = "--ray"
# Enough that a batch is worth its way, and few enough that small files are shared out.
BATCH_ROWS: Final = 1024
# What has no meaning on a cluster, and what to do instead.
REFUSED: Final[Mapping[str, str]] = {
    "stdin_format": "a cluster reads no standard input",
    "per": "Parquet files hold a text a row",
    "id_kind": "ids are those of --id-column, by which a run is gone on with",
    "chunk": "cut documents first, by `nestvec embed` without --ray or in a pipeline of Ray Data",
    "chunk_tokens": "documents are not cut",
    "chunk_overlap": "documents are not cut",
    "chunk_language": "documents are not cut",
    "late": "documents are not cut",
    "group_column": "the texts of a group may lie in different parts of a cluster",
    "weight_column": "the texts of a group may lie in different parts of a cluster",
    "pictures": "Parquet files hold texts",
    "append": "a folder holds one run; put new files into a folder of their own",
    "prune": "a folder holds one run",
    "manifest_path": "the folder's note tells its sources and model",
    "sign_key": "there is no manifest",
    "key_file": "no server is asked",
    "server_model": "no server is asked",
    "device_id": "Ray gives each actor its GPU",
}

OPTIONS: Final = (
    click.option(
        FLAG,
        "ray_address",
        metavar="[=ADDRESS]",
        help="Let a cluster of Ray embed Parquet files into the folder TARGET. ADDRESS as `ray.init` takes it, behind "
        "an equals sign; without one: RAY_ADDRESS, else a cluster that runs on this machine, else a new one.",
    ),
    click.option(
        "--ray-actors",
        type=click.IntRange(min=1),
        help="Most copies of the model at once.  [default: what fits into the nodes, each with --worker-threads CPUs]",
    ),
    click.option(
        "--ray-batch",
        type=click.IntRange(min=1),
        default=BATCH_ROWS,
        show_default=True,
        help="Rows that one of them embeds at a time.",
    ),
)


def ray_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags of a cluster to a command, in the order of its help."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


class RayCommand(click.Command):
    """A command whose `--ray` may stand without a value: the next word is never taken for one."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of a command line."""
        stop = args.index("--") if "--" in args else len(args)
        spelt = [f"{FLAG}=" if arg == FLAG else arg for arg in args[:stop]]
        return super().parse_args(ctx, [*spelt, *args[stop:]])


@dataclass(frozen=True, slots=True)
class RayFlags:
    """What the flags say of a cluster.

    Attributes:
        address: Its address, "" for that which Ray finds.
        actors: How many actors there may be; 0 for what fits.
        batch_rows: Rows of a batch.
    """

    address: str
    actors: int
    batch_rows: int


def ray_flags(flags: dict[str, Any]) -> RayFlags | None:
    """Take the flags of a cluster out of those of the command; None without `--ray`.

    Raises:
        click.UsageError: One of them stands without it, or one that has no meaning on a cluster stands beside it.
    """
    address, actors, batch_rows = (
        flags.pop(name) for name in ("ray_address", "ray_actors", "ray_batch")
    )
    context = click.get_current_context()
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if address is None:
        if stray := given & {"ray_actors", "ray_batch"}:
            raise click.UsageError(f"--{min(stray).replace('_', '-')} goes with {FLAG}")
        return None
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in REFUSED and name in given:
            raise click.UsageError(f"{parameter.opts[0]} does not go with {FLAG}: {REFUSED[name]}")
    if context.params.get("url"):
        raise click.UsageError(
            f"--url (or {URL_VARIABLE}) does not go with {FLAG}: its nodes run the model themselves"
        )
    return RayFlags(address, actors or 0, batch_rows)
