"""Places for models, loaded or not, and how a name from a request finds one."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from nestvec.engine.models.served_model import (
    NO_PIN,
    ModelSpec,
    Pin,
    ServedModel,
    base_model,
    base_name,
)
from nestvec.engine.types import OutputKind
from nestvec.errors import InputError, NestvecError, UnknownModelError


class SlotState(StrEnum):
    """Whether a model can take calls."""

    UNLOADED = "unloaded"  # the first call that means it loads it
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"  # calls under way end, new ones wait and load it again
    FAILED = "failed"  # tried again by a later call


Open = Callable[[], ServedModel]
# Names, in lower case, of the models that whoever is being served may use; None for all. Others do not exist for them.
VISIBLE: ContextVar[frozenset[str] | None] = ContextVar("nestvec_visible_models", default=None)


@dataclass(slots=True, eq=False)
class Slot:
    """A model that is served, whether it is in memory or not.

    Attributes:
        names: What it answers to, its own name first; more are known once it was loaded.
        pins: What some of them stand for beside.
        open: Loads it; blocks. None where it was given loaded.
        is_kept: Never unloaded to make room.
        loads_at_start: Whether it is brought into memory unasked.
        is_adapter: Another's, with an adapter merged in.
        model: While it is loaded.
        spec: Since it was loaded first.
        graph_bytes: Likewise; 0 before.
        adapters: The same model with an adapter, by the task that asks for it.
        error: Why it could not be loaded.
        dropped: Names that it once had and answers to no more.
        new_pins: What names stand for since they were changed; None where they never were.
        users: Calls that hold it.
        used_s: When a call took it last, monotonic.
        failed_s: When it could not be loaded.
    """

    names: tuple[str, ...]
    pins: Mapping[str, Pin] = field(default_factory=dict)
    open: Open | None = None
    is_kept: bool = False
    loads_at_start: bool = False
    is_adapter: bool = False
    state: SlotState = SlotState.UNLOADED
    model: ServedModel | None = None
    spec: ModelSpec | None = None
    graph_bytes: int = 0
    adapters: dict[str, "Slot"] = field(default_factory=dict)
    error: NestvecError | None = None
    dropped: frozenset[str] = frozenset()
    new_pins: Mapping[str, Pin] | None = None
    users: int = 0
    used_s: float = 0.0
    failed_s: float = 0.0
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its own."""
        return self.names[0]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its further names, those that stand for something beside included."""
        return self.names[1:]

    def hold(self, model: ServedModel) -> None:
        """It is loaded."""
        self.model, self.spec, self.graph_bytes = model, model.spec, model.graph_bytes
        names = dict.fromkeys((*model.names, *self.names))
        self.names = tuple(name for name in names if name not in self.dropped)
        if self.new_pins is None:
            self.pins = model.pins
        self.state, self.error = SlotState.READY, None

    def rename(self, before: Sequence[str], after: Sequence[str], pins: Mapping[str, Pin]) -> None:
        """Other aliases from now on, also when it is loaded again.

        Args:
            before: Aliases so far, those that stand for something beside included.
            after: From now on, likewise.
            pins: What those stand for.
        """
        own = [name for name in self.names if name not in before]
        self.dropped = frozenset({*self.dropped, *before} - {*after})
        self.names = tuple(dict.fromkeys((*own, *after)))
        self.pins = self.new_pins = pins

    def pin(self, name: str) -> Pin:
        """What a name stands for beside the model; nothing for most."""
        wanted = base_name(name).casefold()
        return next((pin for n, pin in self.pins.items() if n.casefold() == wanted), NO_PIN)

    def adapted(self, task: str | None) -> "Slot":
        """The one for a task: this one where it has no adapters, or no task is named.

        Raises:
            InputError: It has adapters, and none for this task.
        """
        if task is None or not self.adapters:
            return self
        if task not in self.adapters:
            known = ", ".join(sorted(self.adapters))
            raise InputError(
                f"this model has no adapter for that task; it has: {known}", param="task"
            )
        return self.adapters[task]

    def gives(self, kind: OutputKind | None) -> bool:
        """Whether it is known to give an output."""
        return kind is None or (self.spec is not None and kind in self.spec.kinds)


@dataclass(slots=True)
class Models:
    """Finds the model a request means.

    Attributes:
        accepts_any: A name that is nobody's means the model that a missing one would.
    """

    accepts_any: bool = False
    _slots: list[Slot] = field(default_factory=list)

    def add(self, slot: Slot | ServedModel) -> Slot:
        """Serve a model from now on; the first is the one meant where a request names none."""
        if isinstance(slot, ServedModel):
            own = Slot(names=slot.names)
            own.hold(slot)
            slot = own
        self._slots.append(slot)
        return slot

    def all(self) -> tuple[Slot, ...]:
        """Every one, loaded or not."""
        return tuple(self._slots)

    def loaded(self) -> list[ServedModel]:
        """Those in memory."""
        return [slot.model for slot in self._slots if slot.model is not None]

    def listed(self) -> list[tuple[Slot, str]]:
        """Models under their own names and those that stand for a prompt or dimensions; aliases only answer."""
        return [(slot, name) for slot in self.visible() for name in (slot.name, *slot.pins)]

    def visible(self) -> list[Slot]:
        """Those that whoever is being served may use."""
        allowed = VISIBLE.get()
        if allowed is None:
            return self._slots
        return [s for s in self._slots if any(base_model(n).casefold() in allowed for n in s.names)]

    def find(self, name: str, kind: OutputKind | None = None) -> Slot:
        """Find a model: exact name, alias, any case, last path segment, with or without `:latest`.

        Args:
            name: As the caller wrote it; "" means the first model that gives the output.
            kind: What is wanted of it, where a route is for one output.

        Raises:
            UnknownModelError: Nothing matches, or several do.
        """
        if not name:
            return self._default(kind)
        found = _match(base_name(name), self.visible())
        if found is not None:
            return found
        if self.accepts_any:
            return self._default(kind)
        raise UnknownModelError(name)

    def resolve(self, name: str, kind: OutputKind | None = None) -> ServedModel:
        """The same, of a model that is loaded.

        Raises:
            UnknownModelError: Nothing matches, several do, or it is not in memory.
        """
        model = self.find(name, kind).model
        if model is None:
            raise UnknownModelError(name)
        return model

    def _default(self, kind: OutputKind | None) -> Slot:
        slots = self.visible()
        if not slots:
            raise UnknownModelError("")
        giving = (slot for slot in slots if slot.gives(kind))
        # Where none does, the first says by its own error what it is.
        return next(giving, slots[0])


def _match(wanted: str, slots: Sequence[Slot]) -> Slot | None:
    """The one slot of a name; the stricter rule first."""
    exact = _only(slot for slot in slots if wanted in slot.names)
    if exact is not None:
        return exact
    folded = wanted.casefold()
    loose = _only(slot for slot in slots if folded in {n.casefold() for n in slot.names})
    if loose is not None:
        return loose
    tail = folded.rsplit("/", 1)[-1]
    return _only(
        slot
        for slot in slots
        if (("/" in folded) != ("/" in slot.name))
        and tail == slot.name.casefold().rsplit("/", 1)[-1]
    )


def _only(found: Iterable[Slot]) -> Slot | None:
    """The one match, or None for none or several."""
    matches = list(found)
    return matches[0] if len(matches) == 1 else None
