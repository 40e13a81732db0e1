"""What the actors of a run have done so far, told by each of them after each batch."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from nestvec.errors import NestvecError
from nestvec.ray.embed import Embed


@dataclass(slots=True)
class Totals:
    """What was done by all actors together, what was done twice as a node was lost counted twice.

    Attributes:
        texts: Number of texts.
        tokens: Number of their tokens, after truncation.
        truncated: Number of texts that were truncated.
        batches: Number of batches by node, by Ray's ids.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    batches: "Counter[str]" = field(default_factory=Counter)


class Tally:
    """Adds up what actors tell; an actor of its own, on the node of the driver."""

    def __init__(self) -> None:
        self._totals = Totals()
        self._problem = ""

    def add(self, node: str, texts: int, tokens: int, truncated: int) -> None:
        """Count a batch.

        Args:
            node: The node that did it.
            texts: Number of its texts.
            tokens: Number of their tokens.
            truncated: Number of texts that were truncated.
        """
        totals = self._totals
        totals.texts += texts
        totals.tokens += tokens
        totals.truncated += truncated
        totals.batches[node] += 1

    def fail(self, problem: str) -> None:
        """Note why an actor ends the run: Ray carries the text of its traceback, but not the error."""
        self._problem = self._problem or problem

    def problem(self) -> str:
        """Return the first problem that was told; "" for none."""
        return self._problem

    def totals(self) -> Totals:
        """Return what was counted."""
        return self._totals


class CountedEmbed(Embed):
    """The same as `Embed`, and tells a tally what it has done.

    Args:
        tally: The actor of a `Tally`.
        arguments: What `Embed` is given.
    """

    def __init__(self, tally: Any, arguments: Mapping[str, Any]) -> None:  # noqa: ANN401 - Ray's handles have no types
        import ray

        self._tally, self._wait = tally, ray.get
        self._node = ray.get_runtime_context().get_node_id()
        with self._told():
            super().__init__(**arguments)

    @override
    def __call__(self, table: Any) -> Any:
        """Embed the texts of a table.

        Raises:
            FormatError: As by `Embed`.
        """
        with self._told():
            made, tokens, truncated = self.embed_table(table)
        # Nobody waits for it: a tally that is gone with its driver is no reason to fail.
        self._tally.add.remote(self._node, table.num_rows, tokens, truncated)
        return made

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell the tally of an error of ours, before Ray ends the run for it."""
        try:
            yield
        except NestvecError as error:
            self._wait(self._tally.fail.remote(error.message))
            raise
