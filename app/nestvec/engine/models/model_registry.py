"""The models that are served, loaded or not, and how a name from a request finds one."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import (
    NO_PRESET,
    AliasPreset,
    ServedModel,
    base_model,
    base_name,
)
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS, TextForm
from nestvec.engine.types import OutputKind
from nestvec.errors import InputError, NestvecError, UnknownModelError
from nestvec.system.public_names import public_name


class SlotState(StrEnum):
    """Whether a model can take calls."""

    UNLOADED = "unloaded"  # the first call for it loads it
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"  # calls under way end, new ones wait and load it again
    FAILED = "failed"  # tried again by a later call


OpenModel = Callable[[], ServedModel]
# Names, in lower case, of the models that the running request may use; None for all. Others do not exist for it.
visible_models: ContextVar[frozenset[str] | None] = ContextVar(
    "nestvec_visible_models", default=None
)


class NameClaim(IntEnum):
    """By what right a model has a name; where several models have it, the least number wins."""

    CONFIGURED = 0  # its own name, as the settings say it
    OWN = 1  # its own name, which its card says once it was loaded
    GIVEN = 2  # an alias of the settings
    SHARED = 3  # its source, and what its card calls it: every entry of the card has these


@dataclass(slots=True, eq=False)
class ModelSlot:
    """A model that is served, whether it is in memory or not.

    Attributes:
        names: Names that the model answers to, its own first; more are known once it was loaded.
        presets: What some of the names stand for beside the model.
        given_names: Those of the names that the settings give it, its own first; empty where it was given loaded.
        source: What the settings say the model is: entries of one source share the names of its card.
        is_renamed: Whether its own name is the settings', rather than its card's.
        open: Loads the model; blocks. None where it was given loaded.
        text: The form in which it takes texts.
        is_kept: Whether it is never unloaded to make room.
        loads_at_start: Whether it is loaded at the start, rather than by the first call.
        is_adapter: Whether it is another slot's model with an adapter merged in.
        state: Whether it can take calls.
        model: The model while it is loaded.
        spec: What the model is; known since it was loaded first.
        graph_bytes: Size of its graph and weights; 0 before it was loaded first.
        adapters: Slots of the same model with an adapter, by the task that asks for each.
        parts: Slots of the models that it is made of, where it is a recipe; they are in memory while it is opened.
        error: Why it could not be loaded.
        retired_names: Names that it once had and answers to no more.
        changed_presets: What names stand for since they were changed; None where they never were.
        users: Number of calls that hold it.
        last_used_s: Monotonic time at which a call last acquired or released it.
        load_s: Seconds that loading it took last; 0 before it was loaded first.
        failed_s: Monotonic time at which it could not be loaded.
        waiters: Woken at its next change.
    """

    names: tuple[str, ...]
    presets: Mapping[str, AliasPreset] = field(default_factory=dict)
    given_names: tuple[str, ...] = ()
    source: str = ""
    is_renamed: bool = False
    open: OpenModel | None = None
    text: TextForm = PLAIN_TEXTS
    is_kept: bool = False
    loads_at_start: bool = False
    is_adapter: bool = False
    state: SlotState = SlotState.UNLOADED
    model: ServedModel | None = None
    spec: ModelSpec | None = None
    graph_bytes: int = 0
    adapters: dict[str, "ModelSlot"] = field(default_factory=dict)
    parts: tuple["ModelSlot", ...] = ()
    error: NestvecError | None = None
    retired_names: frozenset[str] = frozenset()
    changed_presets: Mapping[str, AliasPreset] | None = None
    users: int = 0
    last_used_s: float = 0.0
    load_s: float = 0.0
    failed_s: float = 0.0
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.names[0]

    def claim(self, folded: str) -> "NameClaim | None":
        """Return by what right a name in lower case is this model's; None where it is not."""
        if self.given_names and self.given_names[0].casefold() == folded:
            return NameClaim.CONFIGURED
        if self.name.casefold() == folded:
            return NameClaim.OWN
        if any(name.casefold() == folded for name in self.given_names):
            return NameClaim.GIVEN
        if any(name.casefold() == folded for name in self.names):
            return NameClaim.SHARED
        return None

    def set_model(self, model: ServedModel) -> None:
        """Take the model that was loaded, and its names."""
        self.model, self.spec, self.graph_bytes = model, model.spec, model.graph_bytes
        names = dict.fromkeys((*model.names, *self.names))
        self.names = tuple(name for name in names if name not in self.retired_names)
        if self.changed_presets is None:
            self.presets = model.presets
        self.state, self.error = SlotState.READY, None

    def rename(
        self, before: Sequence[str], after: Sequence[str], presets: Mapping[str, AliasPreset]
    ) -> None:
        """Give the model other aliases from now on, also when it is loaded again.

        Args:
            before: Its aliases so far, those with a preset included.
            after: Its aliases from now on, those with a preset included.
            presets: What the new aliases stand for.
        """
        staying = [name for name in self.names if name not in before]
        self.retired_names = frozenset({*self.retired_names, *before} - {*after})
        self.names = tuple(dict.fromkeys((*staying, *after)))
        given = [name for name in self.given_names if name not in before]
        self.given_names = tuple(dict.fromkeys((*given, *after)))
        self.presets = self.changed_presets = presets

    def preset(self, name: str) -> AliasPreset:
        """Return what a name stands for beside the model; `NO_PRESET` for most."""
        if not self.presets:
            return NO_PRESET
        folded = base_name(name).casefold()
        matches = (preset for alias, preset in self.presets.items() if alias.casefold() == folded)
        return next(matches, NO_PRESET)

    def text_form(self, name: str) -> TextForm:
        """Return the form in which texts are taken under a name."""
        text = self.preset(name).text
        return self.text if text is None else text

    def adapted(self, task: str | None) -> "ModelSlot":
        """Return the slot for a task: this one where it has no adapters, or no task is named.

        Raises:
            InputError: The model has adapters, and none for this task.
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
        """Return whether the model is known to give an output."""
        if kind is None:
            return True
        return self.spec is not None and all(part in self.spec.kinds for part in kinds_of(kind))


@dataclass(slots=True)
class ModelRegistry:
    """Finds the model a request means.

    Attributes:
        accepts_any: Whether an unknown name means the model that a request without a name would get.
    """

    accepts_any: bool = False
    _slots: list[ModelSlot] = field(default_factory=list)

    def add(self, slot: ModelSlot | ServedModel) -> ModelSlot:
        """Serve a model from now on; the first one is meant where a request names none."""
        if isinstance(slot, ServedModel):
            model = slot
            slot = ModelSlot(names=model.names)
            slot.set_model(model)
        self._slots.append(slot)
        return slot

    def all(self) -> tuple[ModelSlot, ...]:
        """Return every slot, loaded or not."""
        return tuple(self._slots)

    def loaded(self) -> list[ServedModel]:
        """Return the models in memory."""
        return [slot.model for slot in self._slots if slot.model is not None]

    def listed(self) -> list[tuple[ModelSlot, str]]:
        """Return each visible slot under its own name and under each name with a preset; other aliases only answer."""
        return [(slot, name) for slot in self.visible() for name in (slot.name, *slot.presets)]

    def aliases(self, slot: ModelSlot) -> list[str]:
        """Return the further names that find a slot, those with a preset included."""
        return [name for name in slot.names[1:] if _owner(name, self._slots) is slot]

    def visible(self) -> list[ModelSlot]:
        """Return the slots that the running request may use."""
        allowed = visible_models.get()
        if allowed is None:
            return self._slots
        return [
            slot
            for slot in self._slots
            if any(
                base_model(name).casefold() in allowed
                and (name == slot.name or _owner(name, self._slots) is slot)
                for name in slot.names
            )
        ]

    def find(self, name: str, kind: OutputKind | None = None) -> ModelSlot:
        """Find a model: exact name, alias, any case, last path segment, with or without `:latest`.

        Args:
            name: The name as the caller wrote it; "" means the first model that gives the output.
            kind: Output that the model is wanted for, where a route is for one output.

        Raises:
            UnknownModelError: Nothing matches, or several models do.
        """
        if not name:
            return self._default(kind)
        slot = _match(base_name(name), self.visible())
        if slot is not None:
            return slot
        if self.accepts_any:
            return self._default(kind)
        raise UnknownModelError(name, [public_name(slot.name) for slot in self.visible()])

    def resolve(self, name: str, kind: OutputKind | None = None) -> ServedModel:
        """Find a model as `find` does, and return it loaded.

        Raises:
            UnknownModelError: Nothing matches, several models do, or it is not in memory.
        """
        model = self.find(name, kind).model
        if model is None:
            raise UnknownModelError(name)
        return model

    def _default(self, kind: OutputKind | None) -> ModelSlot:
        slots = self.visible()
        if not slots:
            raise UnknownModelError("")
        giving = (slot for slot in slots if slot.gives(kind))
        # Where none gives it, the first says by its own error what it is.
        return next(giving, slots[0])


def _match(name: str, slots: Sequence[ModelSlot]) -> ModelSlot | None:
    """The one slot of a name; the stricter rule first."""
    exact = _only(slot for slot in slots if name == slot.name)
    if exact is not None:
        return exact
    owner = _owner(name, slots)
    if owner is not None:
        return owner
    folded = name.casefold()
    last_segment = folded.rsplit("/", 1)[-1]
    return _only(
        slot
        for slot in slots
        if (("/" in folded) != ("/" in slot.name))
        and last_segment == slot.name.casefold().rsplit("/", 1)[-1]
    )


def _owner(name: str, slots: Sequence[ModelSlot]) -> ModelSlot | None:
    """The one slot that a name, in any case, stands for; None for none or several.

    A slot's own name is its alone, then aliases count, then what cards and sources call models. What entries of one
    source share is known of all of them as soon as one was loaded, so that a name does not change its meaning when
    another is; it means the entry that goes by its card's name, if there is one.
    """
    folded = name.casefold()
    claims = [(claim, slot) for slot in slots if (claim := slot.claim(folded)) is not None]
    if not claims:
        return None
    best = min(claim for claim, _ in claims)
    if best is not NameClaim.SHARED:
        return _only(slot for claim, slot in claims if claim is best)
    owners = {slot: None for _, slot in claims}
    sources = {slot.source.casefold() for slot in owners}
    owners |= {slot: None for slot in slots if slot.source and slot.source.casefold() in sources}
    if len(owners) > 1 and len(sources) == 1:
        return _only(slot for slot in owners if not slot.is_renamed and slot.source)
    return _only(owners)


def _only(slots: Iterable[ModelSlot]) -> ModelSlot | None:
    """The one slot, or None for none or several."""
    matches = list(slots)
    return matches[0] if len(matches) == 1 else None
