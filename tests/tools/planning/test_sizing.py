"""Plans: as few servers as reach the goal, what they need, and what they cost; goals that cannot be reached say so."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.engine.dtypes import OutputDtype
from nestvec.errors import FormatError
from nestvec.tools.planning import sizing
from nestvec.tools.planning.sizing import PlanGoal, make_plan

from tests.tools.planning.machines import machine, real_machine


@pytest.fixture(autouse=True)
def short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate fewer requests than a plan does."""
    monkeypatch.setattr(sizing, "SIMULATED_REQUESTS", 300)
    monkeypatch.setattr(sizing, "SATURATION_REQUESTS", 60)
    monkeypatch.setattr(sizing, "MIN_SIMULATED_S", 0.0)
    monkeypatch.setattr(sizing, "MAX_CELL_TEXTS_PER_S", 1000)
    monkeypatch.setattr(sizing, "BUDGETS", (128,))


def test_a_plan_has_as_many_servers_as_the_load_needs_and_not_one_more() -> None:
    """Servers that each do a hundred requests a second: seven for 610 of them, not six; and one to spare."""
    plan = make_plan(PlanGoal(610, (256, 256), p99_s=1.0), machine())
    assert plan.fleet.replicas == 7
    assert plan.servers == 8
    assert plan.fleet.capacity_requests_per_s == pytest.approx(100)
    assert plan.fleet.p99_s <= 1.0


def test_a_tighter_goal_takes_more_servers() -> None:
    """Where answers are wanted sooner, more servers stand idle more often."""
    slow = make_plan(PlanGoal(600, (90, 90), p99_s=0.5), real_machine())
    fast = make_plan(PlanGoal(600, (90, 90), p99_s=0.01), real_machine())
    assert fast.fleet.replicas > slow.fleet.replicas


def test_bytes_and_costs_are_what_they_should_be() -> None:
    """Vectors take their dimensions times their dtype, bits eight to a byte; prices are an hour's over what it does."""
    goal = PlanGoal(
        610, (256, 256), p99_s=1.0, dimensions=100, corpus_vectors=1000, price_per_hour=3.6
    )
    plan = make_plan(goal, machine())
    assert plan.vectors_bytes == 1000 * 100 * 4
    assert plan.cost_per_million_texts == pytest.approx(8 * 0.001 / 610 * 1e6)
    assert plan.least_cost_per_million_texts == pytest.approx(0.001 / 100 * 1e6, rel=0.01)
    assert plan.corpus_s == pytest.approx(1000 / 800, rel=0.01)
    bits = PlanGoal(50, (9, 9), 1.0, dimensions=100, corpus_vectors=1000, dtype=OutputDtype.UBINARY)
    assert make_plan(bits, machine()).vectors_bytes == 1000 * 13
    assert make_plan(bits, machine()).cost_per_million_texts is None


def test_loads_beyond_a_cell_are_planned_in_equal_cells() -> None:
    """Three cells' texts a second take three times what one cell's do."""
    one = make_plan(PlanGoal(1000, (256, 256), p99_s=0.5), machine())
    three = make_plan(PlanGoal(3000, (256, 256), p99_s=0.5), machine())
    assert (one.goal.cells, three.goal.cells) == (1, 3)
    assert three.fleet.replicas == 3 * one.fleet.replicas


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (PlanGoal(10, (60, 120), p99_s=0.001), "p99.*however many servers"),
        (PlanGoal(10, (60, 257), p99_s=1.0), "at most 256 tokens"),
        (PlanGoal(10, (60, 120), p99_s=1.0, dimensions=385), "384 dimensions"),
    ],
)
def test_a_goal_that_cannot_be_reached_says_why(goal: PlanGoal, said: str) -> None:
    """The error names what is in the way, and what to do."""
    with pytest.raises(ValueError, match=said):
        make_plan(goal, real_machine())


def plan(*arguments: str) -> tuple[int, str]:
    """Run `nestvec plan` with some load, and return its status and output."""
    done = CliRunner().invoke(group, ["plan", "--qps", "50", "--p99", "100", *arguments])
    if isinstance(done.exception, FormatError):
        return 1, done.exception.message
    return done.exit_code, done.output


def test_the_command_prints_a_plan_as_text_and_as_json(tmp_path: Path) -> None:
    """Replicas, budget, memory, store and cost, or what is missing for it."""
    path = tmp_path / "machine.json"
    path.write_text(real_machine().json_text())
    file = ("--coefficients", str(path), "--tokens", "60-120")
    code, text = plan(*file, "--corpus", "1000000", "--dims", "128", "--dtype", "int8")
    assert code == 0, text
    for word in ("replicas ", "max_batch_tokens", "p99", "128 MB of vectors", "--price-per-hour"):
        assert word in text
    code, text = plan(*file, "--price-per-hour", "1.5", "--format", "json")
    assert code == 0, text
    content = json.loads(text)
    assert content["plan"]["servers"] == content["plan"]["fleet"]["replicas"] + 1
    assert content["coefficients"]["model"] == "none"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "120-60"], "no range"),
        (["--tokens", "many"], "60-120"),
        (["--tokens", "0"], "no range"),
        (["--tokens", "10", "--dims", "0"], "dims"),
        (["--tokens", "10", "--qps", "0"], "qps"),
        (["--tokens", "10", "--coefficients", "nowhere.json"], "nestvec bench --coefficients"),
        ([], "--tokens"),
    ],
)
def test_flags_that_make_no_sense_are_named(arguments: list[str], said: str) -> None:
    """Nothing is simulated with them."""
    code, output = plan(*arguments)
    assert code in (1, 2)
    assert said in output
