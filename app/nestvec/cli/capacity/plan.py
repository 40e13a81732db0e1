"""`nestvec plan`: how many servers a load needs, by simulating them."""

import re
from pathlib import Path
from typing import Final

import click
from typing_extensions import override

from nestvec.cli.tables import bytes_text
from nestvec.engine.dtypes import OFFERED, OutputDtype
from nestvec.tools.planning.balancers import BalancerPolicy
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.plan_text import plan_json, plan_table
from nestvec.tools.planning.sizing import PlanGoal, make_plan

# Where `nestvec bench --coefficients` writes, and this reads, unless it is told.
COEFFICIENTS_FILE: Final = "nestvec-coefficients.json"
LENGTHS: Final = re.compile(r"(\d{1,7})(?:-(\d{1,7}))?")
POSITIVE: Final = click.FloatRange(min=0, min_open=True, max=1e8)


class TokenLengths(click.ParamType[tuple[int, int]]):
    """The lengths of texts: a number of tokens, or the fewest and the most, as in 60-120."""

    name = "tokens"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read the lengths; whatever is wrong with them is a usage error."""
        if isinstance(value, tuple):
            return value
        found = LENGTHS.fullmatch(str(value))
        if found is None:
            self.fail("give a number of tokens, or the fewest and the most: 60-120", param, ctx)
        low = int(found[1])
        high = int(found[2] or low)
        if not 1 <= low <= high:
            self.fail(f"from {low} to {high} tokens is no range of lengths", param, ctx)
        return low, high


@click.command("plan")
@click.option("--qps", type=POSITIVE, required=True, help="Requests a second.")
@click.option(
    "--tokens",
    type=TokenLengths(),
    required=True,
    metavar="N|N-M",
    help="Tokens of a text, or the fewest and the most.",
)
@click.option(
    "--p99",
    "p99_ms",
    type=POSITIVE,
    required=True,
    metavar="MILLISECONDS",
    help="In how long 99 of 100 requests are to be answered.",
)
@click.option("--texts-per-request", type=click.IntRange(1, 4096), default=1, show_default=True)
@click.option(
    "--dims",
    type=click.IntRange(1),
    help="Dimensions of stored vectors.  [default: the model's own]",
)
@click.option(
    "--dtype",
    type=click.Choice([dtype.value for dtype in OFFERED]),
    default="float32",
    show_default=True,
    help="Dtype of stored vectors.",
)
@click.option(
    "--corpus",
    type=click.IntRange(0, 10**13),
    default=0,
    metavar="VECTORS",
    help="How many vectors are stored.",
)
@click.option(
    "--price-per-hour", type=POSITIVE, help="Of a machine, in any currency; tells what texts cost."
)
@click.option(
    "--spare",
    type=click.IntRange(0, 1000),
    default=1,
    show_default=True,
    help="Replicas more than the load needs, which may fail or restart.",
)
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in BalancerPolicy]),
    default=BalancerPolicy.LEAST_REQUEST.value,
    show_default=True,
    help="How the balancer chooses a replica.",
)
@click.option(
    "--coefficients",
    type=click.Path(path_type=Path, dir_okay=False),
    default=COEFFICIENTS_FILE,
    show_default=True,
    metavar="FILE",
    help="What `nestvec bench --coefficients FILE` measured on the machine that will serve.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulations.")
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    *,
    qps: float,
    tokens: tuple[int, int],
    p99_ms: float,
    texts_per_request: int,
    dims: int | None,
    dtype: str,
    corpus: int,
    price_per_hour: float | None,
    spare: int,
    policy: str,
    coefficients: Path,
    seed: int,
    style: str,
) -> None:
    """Replicas, batch budget, memory, store and cost of a load.

    Servers are simulated with the engine's own scheduler and admission, from what `nestvec bench --coefficients`
    measured. Takes up to a minute.
    """
    machine = MachineCoefficients.read(coefficients)
    goal = PlanGoal(
        requests_per_s=qps,
        tokens=tokens,
        p99_s=p99_ms / 1000,
        texts_per_request=texts_per_request,
        dimensions=dims or machine.dimensions,
        dtype=OutputDtype(dtype),
        corpus_vectors=corpus,
        spare_replicas=spare,
        price_per_hour=price_per_hour,
        policy=BalancerPolicy(policy),
        seed=seed,
    )
    try:
        plan = make_plan(goal, machine)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(
        plan_json(plan, machine) if style == "json" else plan_table(plan, machine, bytes_text)
    )
