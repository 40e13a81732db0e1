"""Small sizes whose launches are captured once and then started as one."""

import logging
from dataclasses import dataclass

import numpy as np

from app.engine.device.arrays import Feeds, feeds
from app.engine.device.binding import HALF, HIDDEN, POOLED, Binder, Facts, Stage, copied_in
from app.engine.device.line import DeviceLine
from app.engine.device.session import Bound, DeviceSession
from app.engine.device.shapes import Shape, buckets
from app.engine.types import Batch, Layout
from app.errors import BackendError, BackendLostError, BackendMemoryError

log = logging.getLogger(__name__)

STARTS = 2  # the first captures, the second shows that it can be started again


@dataclass(frozen=True, slots=True)
class Capture:
    """A size that was captured, with memory of its own that stays.

    Attributes:
        number: Under which the session has it.
        inputs: Where it reads.
        outputs: Where it writes, by name.
        memory: All that.
    """

    number: int
    inputs: dict[str, Bound]
    outputs: dict[str, Bound]
    memory: Binder


def capture_all(
    session: DeviceSession, line: DeviceLine, facts: Facts, *, max_tokens: int, longest: int
) -> dict[Shape, Capture]:
    """Capture what can be; in the device's thread. Where the runtime cannot, none.

    Args:
        session: The graph.
        line: The device.
        facts: Of the graph.
        max_tokens: Of the largest.
        longest: The most tokens of an input.

    Raises:
        BackendLostError: The device is gone.
    """
    found: dict[Shape, Capture] = {}
    if not session.captures or facts.reads_offsets:
        return found
    try:
        for number, shape in enumerate(buckets(max_tokens, longest), start=1):
            memory = Binder(line.device, facts)
            # Whatever inputs there are, they take no more pages than this.
            pages = shape.inputs + shape.tokens // max(1, facts.page[0])
            outputs = memory.outputs(session, output_names(facts), shape)
            capture = Capture(number, memory.inputs(session, shape, pages), outputs, memory)
            for _ in range(STARTS):
                run_empty(session, line, facts, shape, capture)
            found[shape] = capture
    except BackendLostError:
        raise
    except BackendMemoryError:
        log.info("no memory for more than %d captured sizes", len(found))
    except BackendError as error:
        log.warning("captured launches are off: %s", error.__cause__ or error)
        for capture in found.values():
            capture.memory.release()
        return {}
    return found


def output_names(facts: Facts) -> tuple[str, ...]:
    """What a graph gives."""
    return (HIDDEN, POOLED, HALF) if facts.pooling else (HIDDEN,)


def run_empty(
    session: DeviceSession,
    line: DeviceLine,
    facts: Facts,
    shape: Shape,
    capture: Capture | None = None,
) -> None:
    """Run a shape with nothing in it that matters, and wait for it; in the device's thread.

    Raises:
        BackendError: The runtime failed.
    """
    made = empty_feeds(facts, shape)
    filled = Stage(line.device).fill(session, facts, shape, made)
    if capture is not None:
        bound = copied_in(capture.memory, capture.inputs, filled)
        session.run(bound, list(capture.outputs.values()), capture.number)
        line.device.wait(line.device.record())
        return
    memory = Binder(line.device, facts)
    try:
        bound = copied_in(memory, memory.inputs(session, shape, made.pages), filled)
        outputs = memory.outputs(session, output_names(facts), shape)
        session.run(bound, list(outputs.values()))
        line.device.wait(line.device.record())
    finally:
        memory.release()


def empty_feeds(facts: Facts, shape: Shape) -> Feeds:
    """Inputs as long as may be, of the first word."""
    left = np.clip(shape.tokens - np.arange(shape.inputs) * shape.longest, 0, shape.longest).astype(
        np.int64
    )
    nothing = np.zeros(shape.tokens, np.int64)
    batch = Batch({"ids": nothing, "types": nothing}, left[left > 0], Layout.PACKED)
    return feeds(batch, shape, facts.pooling, facts.page[0])
