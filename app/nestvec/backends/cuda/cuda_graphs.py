"""Small sizes whose launches are captured once and then started as one."""

import logging
from dataclasses import dataclass

from nestvec.backends.cuda.binding import Binder, Packing, Stage, copied_in
from nestvec.backends.cuda.device_thread import DeviceLine
from nestvec.backends.cuda.graph_adapter import Plan
from nestvec.backends.cuda.session import Bound, DeviceSession
from nestvec.backends.cuda.shapes import Shape
from nestvec.errors import BackendError, BackendLostError, BackendMemoryError

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
    session: DeviceSession, line: DeviceLine, plan: Plan, *, max_tokens: int, longest: int
) -> dict[Shape, Capture]:
    """Capture what can be; in the device's thread. Where the runtime cannot, none.

    Args:
        session: The graph.
        line: The device.
        plan: Of the graph.
        max_tokens: Of the largest.
        longest: The most tokens of an input.

    Raises:
        BackendLostError: The device is gone.
    """
    found: dict[Shape, Capture] = {}
    if not session.captures or plan.waits_for_host:
        return found
    try:
        for number, shape in enumerate(plan.sizes(max_tokens, longest), start=1):
            memory = Binder(line, plan)
            outputs = memory.outputs(session, plan.outputs, shape)
            packing = Packing.of(session, plan, shape)
            inputs = memory.inputs(session, packing, shape, plan.most_pages(shape))
            capture = Capture(number, inputs, outputs, memory)
            with line.quiet():
                for _ in range(STARTS):
                    run_empty(session, line, plan, shape, capture)
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


def run_empty(
    session: DeviceSession,
    line: DeviceLine,
    plan: Plan,
    shape: Shape,
    capture: Capture | None = None,
) -> None:
    """Run a shape with nothing in it that matters, and wait for it; in the device's thread.

    Raises:
        BackendError: The runtime failed.
    """
    made = plan.empty(shape)
    filled = Stage(line).fill(session, plan, shape, made)
    if capture is not None:
        bound = copied_in(capture.memory, capture.inputs, filled)
        session.run(bound, list(capture.outputs.values()), capture.number)
        line.device.wait(line.device.record())
        return
    memory = Binder(line, plan)
    try:
        inputs = memory.inputs(session, filled.packing, shape, made.pages)
        bound = copied_in(memory, inputs, filled)
        outputs = memory.outputs(session, plan.outputs, shape)
        session.run(bound, list(outputs.values()))
        line.device.wait(line.device.record())
    finally:
        memory.release()
