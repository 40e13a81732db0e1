"""`nestvec model fit` and `nestvec model apply`: maps between spaces of vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from nestvec.assembly.model import prepare_model
from nestvec.assembly.service import build_engine
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.engine.types import FloatArray, NullObserver
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import ConfigError, FormatError
from nestvec.model_store.artefacts.maps import (
    check_map_name,
    keep_map,
    read_map,
    read_maps,
    write_map,
)
from nestvec.observability.logs import configure_logs
from nestvec.tools.quality.mapping import fit_exits, fit_stored, fit_translation, fit_turn
from nestvec.tools.quality.tasks import read_retrieval, read_texts
from nestvec.tools.quality.vectors import ModelVectors

ALL = "all"
TURNS = (MapKind.SVD, MapKind.PCA, MapKind.WHITEN, MapKind.CENTRE)
FLAGS = (
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
)


@click.command("fit")
@click.argument("name", required=False)
@click.option(
    "--texts",
    "files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to fit on, one a line; may be repeated.",
)
@click.option(
    "--exits",
    is_flag=False,
    flag_value=ALL,
    metavar="[3,4,5]",
    help="Fit early exits to the last layer's space; all, or after so many layers.",
)
@click.option("--to", metavar="MODEL", help="Fit a translation to another model's space.")
@click.option(
    "--from-vectors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Fit a translation from stored vectors (.npy, one a text, in order) to this model's space.",
)
@click.option(
    "--turn",
    type=click.Choice([kind.value for kind in TURNS]),
    help="Turn the space so that prefixes hold more (svd, pca), whiten it, or take its mean off.",
)
@click.option("--map-name", help="Name of the map; default: exit-K, to-MODEL, or the kind.")
@click.option(
    "--retrieval",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in BEIR's layout: a translation is judged by its search, too.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Refuse a translation that loses more of a search than this.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the map there instead.")
@settings_flags(*FLAGS)
def fit(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    name: str | None,
    files: tuple[Path, ...],
    exits: str | None,
    to: str | None,
    from_vectors: Path | None,
    turn: str | None,
    map_name: str | None,
    retrieval: Path | None,
    max_loss: float,
    out: Path | None,
) -> None:
    """Fit affine maps of a model's vectors by texts of your own, and measure them on a fifth held out.

    NAME is a card, a folder or a Hub id; the configured model if left out. Maps are kept beside the model's artefact;
    servers have them at their next start, and requests ask for them by `map`, for exits by `layers`.
    """
    configure_logs(level=settings.log_level, style="auto")
    if sum(given is not None for given in (exits, to, from_vectors, turn)) != 1:
        raise ConfigError(["choose one of --exits, --to, --from-vectors and --turn"])
    if from_vectors is not None and out is None:
        raise ConfigError(["--from-vectors needs --out FILE: the map is of no model served here"])
    own = settings.model_copy(update={"model": name}) if name else settings
    texts = [text for file in files for text in read_texts(file)]
    with tqdm(unit="text", total=len(texts) * (1 if to is None else 2)) as bar:
        target = (
            None if to is None else partial(_open, settings.model_copy(update={"model": to}), bar)
        )
        with _open(own, bar) as source:
            found = _fit(source, texts, _Asked(exits, turn, from_vectors, target, retrieval))
    for one in found:
        _show(one)
    _refuse_lossy(found, max_loss)
    _keep(own, _renamed(found, map_name), out)


@click.command("apply")
@click.argument("map_name", metavar="MAP")
@click.argument(
    "source", metavar="IN.npy", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("target", metavar="OUT.npy", type=click.Path(path_type=Path))
@settings_flags(*FLAGS)
def apply(settings: Settings, *, map_name: str, source: Path, target: Path) -> None:
    """Send stored vectors through MAP, a file or a map of the configured model; rows come out at unit length.

    With a translation a store moves to another model without its texts being embedded again.
    """
    configure_logs(level=settings.log_level, style="auto")
    one = _find_map(settings, map_name)
    vectors = _read_vectors(source)
    if vectors.shape[1] != len(one.weight):
        raise FormatError(
            f"{source}: {vectors.shape[1]} values a vector, the map takes {len(one.weight)}"
        )
    mapped = finish(one.apply(vectors), dimensions=None, normalize=True)
    with target.open("wb") as file:
        np.save(file, mapped)
    click.echo(f"{target}: {len(mapped)} vectors of {one.width} values, space {one.space}")


def _find_map(settings: Settings, name: str) -> AffineMap:
    path = Path(name)
    if path.is_file():
        return read_map(path)
    package = prepare_model(settings)
    maps = read_maps(package.artefact, package.spec.space)
    if name not in maps:
        known = ", ".join(maps) or "none"
        raise FormatError(f"'{name}' is no file, and {package.spec.name} has these maps: {known}")
    return maps[name]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to fit: one of the first four."""

    exits: str | None
    turn: str | None
    from_vectors: Path | None
    target: Callable[[], ModelVectors] | None
    retrieval: Path | None


def _open(settings: Settings, bar: "tqdm[Any]") -> ModelVectors:
    service = build_engine(settings.for_own_work(), NullObserver())
    return ModelVectors(service, bar.update)


def _fit(source: ModelVectors, texts: Sequence[str], asked: _Asked) -> list[AffineMap]:
    """What was asked for."""
    if asked.exits is not None:
        return fit_exits(source, texts, _layers(asked.exits, source.exits))
    if asked.turn is not None:
        return [fit_turn(source, texts, MapKind(asked.turn))]
    if asked.from_vectors is not None:
        return [fit_stored(_read_vectors(asked.from_vectors), source, texts)]
    task = None if asked.retrieval is None else read_retrieval(asked.retrieval)
    assert asked.target is not None  # noqa: S101 - one of the four was given
    with asked.target() as target:
        return [fit_translation(source, target, texts, task)]


def _layers(chosen: str, exits: Sequence[int]) -> list[int]:
    if len(exits) <= 1:
        raise FormatError(
            "this model has no early exits (a graph of its own, bf16, or one layer only)"
        )
    try:
        wanted = [*exits[:-1]] if chosen == ALL else sorted({int(n) for n in chosen.split(",")})
    except ValueError as error:
        raise ConfigError([f"--exits: '{chosen}' is no list of numbers"]) from error
    if wrong := [n for n in wanted if n not in exits[:-1]]:
        raise ConfigError([f"--exits: {wrong[0]} is not 1 to {exits[-1] - 1}"])
    return wanted


def _read_vectors(path: Path) -> FloatArray:
    try:
        found = np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise FormatError(f"{path}: not a .npy file of numbers") from error
    if found.ndim != 2 or not len(found) or not np.isfinite(found).all():  # noqa: PLR2004 - a matrix
        raise FormatError(f"{path}: expected rows of finite numbers")
    return found


def _renamed(found: Sequence[AffineMap], name: str | None) -> list[AffineMap]:
    if name is None:
        return list(found)
    if len(found) > 1:
        raise ConfigError(["--map-name names one map, and several were fitted"])
    return [replace(found[0], name=check_map_name(name))]


def _keep(settings: Settings, found: Sequence[AffineMap], out: Path | None) -> None:
    if out is not None and len(found) > 1:
        raise ConfigError(["--out takes one map, and several were fitted"])
    for one in found:
        if out is not None:
            write_map(out, one)
        path = out or keep_map(prepare_model(settings).artefact, one)
        click.echo(f"{path}: map '{one.name}', space {one.space}")


def _show(one: AffineMap) -> None:
    click.echo(f"{one.name}: {len(one.weight)} to {one.width} values")
    for name, value in one.figures.items():
        click.echo(f"  {name:<28} {value:.4g}")


def _refuse_lossy(found: Sequence[AffineMap], max_loss: float) -> None:
    """A translation replaces what the model's own vectors would find, so its loss is no matter of taste."""
    for one in found:
        loss = one.figures.get("loss", 0.0)
        if one.kind is MapKind.TRANSLATE and loss > max_loss:
            raise FormatError(
                f"map '{one.name}' loses {loss:.0%} of what a search finds, more than {max_loss:.0%}: "
                "it is not kept. Embed the texts anew, fit on more of them, or accept it with --max-loss"
            )
