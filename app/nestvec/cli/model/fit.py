"""`nestvec model fit` and `nestvec model apply`: fit and apply maps between spaces of vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.cli.flags import settings_flags
from nestvec.cli.model.idf import keep_term_counts
from nestvec.cli.model.label_flags import LabelFit, LabelFlags, label_flags
from nestvec.config.settings import Settings
from nestvec.engine.front.vector_plan import why_no_exits
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import ConfigError, FormatError
from nestvec.model_store.artefacts.maps import (
    check_map_name,
    read_map,
    read_maps,
    store_map,
    write_map,
)
from nestvec.observability.logs import configure_logs
from nestvec.tools.quality.maps.model_maps import (
    fit_exits,
    fit_space_map,
    fit_stored,
    fit_translation,
)
from nestvec.tools.quality.tasks import read_retrieval, read_texts
from nestvec.tools.quality.vectors import ModelVectors

ALL = "all"
TURNS = (MapKind.SVD, MapKind.PCA, MapKind.WHITEN, MapKind.CENTRE)
# Kinds that are refused where they lose too much of a search, and what may be done about it.
JUDGED = {
    MapKind.TRANSLATE: "Embed the texts anew, fit on more of them",
    MapKind.REMOVE: "Remove fewer directions (--rank), give other pairs",
}
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
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to fit on, one a line; may be repeated. With --remove: whose neighbours are compared.",
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
@click.option(
    "--idf", is_flag=True, help="Count terms: the model gives their BM25 weights from then on."
)
@label_flags
@click.option("--map-name", help="Name of the map; default: exit-K, to-MODEL, or the kind.")
@click.option(
    "--retrieval",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in BEIR's layout: a translation or a removal is judged by its search, too.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Refuse a translation or a removal that loses more of a search than this.",
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
    idf: bool,
    label_flags: LabelFlags,
    map_name: str | None,
    retrieval: Path | None,
    max_loss: float,
    out: Path | None,
) -> None:
    """Fit affine maps of a model's vectors by texts of your own, and measure them on texts held out.

    NAME is a card, a folder or a Hub id; the configured model if left out. Maps are kept beside the model's artefact;
    servers have them at their next start, and requests ask for them by `map`, for exits by `layers`.
    """
    configure_logs(level=settings.log_level, style="auto")
    kinds = (exits, to, from_vectors, turn, idf or None, label_flags.concepts, label_flags.remove)
    if sum(option is not None for option in kinds) != 1:
        raise ConfigError(
            ["choose one of --exits, --to, --from-vectors, --turn, --idf, --concepts and --remove"]
        )
    label_flags.check(has_texts=bool(files))
    fits_labels = label_flags.reader()
    if fits_labels is None and not files:
        raise ConfigError(["--texts FILE is needed: the texts to fit on"])
    if from_vectors is not None and out is None:
        raise ConfigError(["--from-vectors needs --out FILE: the map is of no model served here"])
    model_settings = settings.model_copy(update={"model": name}) if name else settings
    texts = [text for file in files for text in read_texts(file)]
    if idf:
        if map_name is not None or out is not None:
            raise ConfigError(["--idf makes no map: leave --map-name and --out out"])
        keep_term_counts(model_settings, texts)
        return
    with tqdm(unit="text", total=len(texts) * (1 if to is None else 2)) as bar:
        target = None
        if to is not None:
            target = partial(_open_model, settings.model_copy(update={"model": to}), bar)
        request = _FitRequest(exits, turn, from_vectors, target, fits_labels, retrieval)
        with _open_model(model_settings, bar) as source:
            maps = _fit(source, texts, request)
    for affine_map in maps:
        _show(affine_map)
    _refuse_lossy(maps, max_loss)
    _store(model_settings, _renamed(maps, map_name), out)


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
    affine_map = _find_map(settings, map_name)
    vectors = _read_vectors(source)
    if vectors.shape[1] != len(affine_map.weight):
        raise FormatError(
            f"{source}: {vectors.shape[1]} values a vector, the map takes {len(affine_map.weight)}"
        )
    mapped = finish(affine_map.apply(vectors), dimensions=None, normalize=True)
    with target.open("wb") as file:
        np.save(file, mapped)
    width, space = affine_map.width, affine_map.space
    click.echo(f"{target}: {len(mapped)} vectors of {width} values, space {space}")


def _find_map(settings: Settings, name: str) -> AffineMap:
    """Read a map from a file, or find one of the configured model's.

    Raises:
        FormatError: There is no such map.
    """
    path = Path(name)
    if path.is_file():
        return read_map(path)
    package = prepare_model(settings)
    maps = read_maps(package.artefact, settings.text.form().space_of(package.spec.space))
    if name not in maps:
        known = ", ".join(maps) or "none"
        raise FormatError(f"'{name}' is no file, and {package.spec.name} has these maps: {known}")
    return maps[name]


@dataclass(frozen=True, slots=True)
class _FitRequest:
    """What to fit; one of the first five is given.

    Attributes:
        exits: Early exits, as `--exits` has them.
        turn: Kind of a map within the space.
        from_vectors: File of stored vectors to translate from.
        target: Opens the model to translate to.
        fits_labels: Fits a map of labels, or one that takes directions out.
        retrieval: Folder of a search by which a translation or a removal is judged.
    """

    exits: str | None
    turn: str | None
    from_vectors: Path | None
    target: Callable[[], ModelVectors] | None
    fits_labels: LabelFit | None
    retrieval: Path | None


def _open_model(settings: Settings, bar: "tqdm[Any]") -> ModelVectors:
    """Open a model in this process; the bar shows the texts that it has embedded."""
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    return ModelVectors(service, bar.update)


def _fit(source: ModelVectors, texts: Sequence[str], request: _FitRequest) -> list[AffineMap]:
    """Fit the maps that were requested."""
    if request.exits is not None:
        return fit_exits(source, texts, _layers(request.exits, source.exits, source.model))
    if request.turn is not None:
        return [fit_space_map(source, texts, MapKind(request.turn))]
    if request.from_vectors is not None:
        return [fit_stored(_read_vectors(request.from_vectors), source, texts)]
    task = None if request.retrieval is None else read_retrieval(request.retrieval)
    if request.fits_labels is not None:
        return [request.fits_labels(source, texts, task)]
    assert request.target is not None  # noqa: S101 - one of the five was given
    with request.target() as target:
        return [fit_translation(source, target, texts, task)]


def _layers(text: str, exits: Sequence[int], model: ServedModel) -> list[int]:
    """The layers that `--exits` names.

    Raises:
        FormatError: The model has no early exits.
        ConfigError: The text is no list of its exits.
    """
    if len(exits) <= 1:
        raise FormatError(f"this model has no early exits: {why_no_exits(model)}")
    try:
        layers = [*exits[:-1]] if text == ALL else sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError([f"--exits: '{text}' is no list of numbers"]) from error
    if wrong := [layer for layer in layers if layer not in exits[:-1]]:
        raise ConfigError([f"--exits: {wrong[0]} is not 1 to {exits[-1] - 1}"])
    return layers


def _read_vectors(path: Path) -> FloatArray:
    """Read stored vectors [N, D] as float32.

    Raises:
        FormatError: The file holds none.
    """
    try:
        vectors = np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise FormatError(f"{path}: not a .npy file of numbers") from error
    if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():  # noqa: PLR2004 - a matrix
        raise FormatError(f"{path}: expected rows of finite numbers")
    return vectors


def _renamed(maps: Sequence[AffineMap], name: str | None) -> list[AffineMap]:
    """Give a map the name of `--map-name`.

    Raises:
        ConfigError: There are several maps.
    """
    if name is None:
        return list(maps)
    if len(maps) > 1:
        raise ConfigError(["--map-name names one map, and several were fitted"])
    return [replace(maps[0], name=check_map_name(name))]


def _store(settings: Settings, maps: Sequence[AffineMap], out: Path | None) -> None:
    """Write maps beside the model's artefact, or one map to a file.

    Raises:
        ConfigError: There are several maps for one file.
    """
    if out is not None and len(maps) > 1:
        raise ConfigError(["--out takes one map, and several were fitted"])
    for affine_map in maps:
        if out is not None:
            write_map(out, affine_map)
        path = out or store_map(prepare_model(settings).artefact, affine_map)
        click.echo(f"{path}: map '{affine_map.name}', space {affine_map.space}")


def _show(affine_map: AffineMap) -> None:
    """Print what was measured of a map."""
    click.echo(f"{affine_map.name}: {len(affine_map.weight)} to {affine_map.width} values")
    for name, value in affine_map.figures.items():
        click.echo(f"  {name:<28} {value:.4g}")


def _refuse_lossy(maps: Sequence[AffineMap], max_loss: float) -> None:
    """Refuse a translation or a removal that loses too much of a search.

    It replaces what the model's own vectors would find, so its loss is no matter of taste.

    Raises:
        FormatError: A map loses more than it may.
    """
    for affine_map in maps:
        loss = affine_map.figures.get("loss", 0.0)
        if affine_map.kind in JUDGED and loss > max_loss:
            raise FormatError(
                f"map '{affine_map.name}' loses {loss:.0%} of what a search finds, more than {max_loss:.0%}: "
                f"it is not kept. {JUDGED[affine_map.kind]}, or accept it with --max-loss"
            )
