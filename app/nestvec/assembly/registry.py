"""Settings to the models that a server knows: a slot for each, under all of its names."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from nestvec.assembly.model import OPENAI_NAMES, alias_presets
from nestvec.config.settings import Settings
from nestvec.engine.front.validation import check_profiles
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot
from nestvec.engine.models.served_model import AliasPreset, ServedModel, check_presets
from nestvec.errors import ConfigError

# Opens a model by its settings, and the task of the adapter that is merged in; None for none.
OpenModel = Callable[[Settings, str | None], ServedModel]


def build_registry(settings: Settings, open_model: OpenModel) -> ModelRegistry:
    """Return a registry with a slot for each model, and for each of its adapters."""
    models = ModelRegistry(accepts_any=settings.accept_any_model)
    for name, of_model in settings.per_model().items():
        slot = models.add(_slot(settings, name, of_model, open_model))
        for task in of_model.adapters:
            slot.adapters[task] = _adapter_slot(slot, of_model, task, open_model)
    for slot in models.all():
        for adapted in slot.adapters.values():
            models.add(adapted)
    return models


def rename_models(models: ModelRegistry, before: Settings, after: Settings) -> None:
    """Give models the aliases of other settings; nothing else of the settings is looked at.

    Args:
        models: The registry.
        before: The settings whose aliases are in use.
        after: The settings whose aliases are to be in use.

    Raises:
        ConfigError: An alias stands for something that its model does not have; nothing has changed then.
    """
    new_settings = after.per_model()
    slots = [slot for slot in models.all() if not slot.is_adapter and not slot.parts]
    changes = []
    for slot, (name, old) in zip(slots, before.per_model().items(), strict=True):
        new = new_settings.get(name, old)
        presets = alias_presets(new)
        _check_forms(presets, alias_presets(old))
        if slot.spec is not None:
            check_presets(presets, slot.spec)
        if slot.model is not None:
            check_profiles(presets, slot.model, allows_untrained=new.allow_untrained_layers)
        changes.append(
            (slot, [*old.model_aliases, *old.aliases], [*new.model_aliases, *new.aliases], presets)
        )
    for slot, removed, added, presets in changes:
        slot.rename(removed, added, presets)


def _check_forms(presets: Mapping[str, AliasPreset], before: Mapping[str, AliasPreset]) -> None:
    """Refuse aliases with a form of texts that no tokenizer was opened in.

    Raises:
        ConfigError: There are such; names each.
    """
    known = {preset.text for preset in before.values()} | {None}
    problems = [
        f"aliases.{name}.text: a form that no alias had at the start takes a restart"
        for name, preset in presets.items()
        if preset.text not in known
    ]
    if problems:
        raise ConfigError(problems)


def _slot(settings: Settings, name: str, of_model: Settings, open_model: OpenModel) -> ModelSlot:
    """Return a model's slot, under every name that is known before it is loaded."""
    first = of_model.served_model_name or of_model.model
    openai = OPENAI_NAMES if of_model.openai_aliases else ()
    source = () if Path(of_model.model).expanduser().is_absolute() else (of_model.model,)
    given = (first, *of_model.model_aliases, *of_model.aliases, *openai)
    return ModelSlot(
        names=tuple(dict.fromkeys((first, *source, *given[1:]))),
        given_names=given,
        source=of_model.model,
        is_renamed=of_model.served_model_name is not None,
        presets=alias_presets(of_model),
        text=of_model.text.form(),
        open=partial(open_model, of_model, None),
        is_kept=not name or settings.models[name].keep,
        loads_at_start=not name or settings.models[name].load == "start",
    )


def _adapter_slot(
    base: ModelSlot, of_base: Settings, task: str, open_model: OpenModel
) -> ModelSlot:
    """Return the slot of a model with an adapter, which is loaded on first use: "<base's name>:<task>"."""
    name = f"{base.name}:{task}"
    settings = of_base.model_copy(
        update={
            "served_model_name": name,
            "model_aliases": [],
            "aliases": {},
            "openai_aliases": False,
        }
    )
    return ModelSlot(
        names=(name,),
        open=partial(open_model, settings, task),
        is_adapter=True,
        text=settings.text.form(),
    )
