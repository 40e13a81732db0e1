"""`nestvec export`: a model's graph, tokenizer and probes in a folder of one's own."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import click

from app.cli.flags import settings_flags
from app.errors import ArtefactError
from app.logs import configure_logs
from app.main import prepare_model
from app.settings import Settings


@click.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage"),
)
def command(settings: Settings, folder: Path) -> None:
    """Write the model's ONNX graph, weights, tokenizer and probes to FOLDER.

    The graph is packed: `spec.json` beside it says what it takes and gives. `nestvec serve` exports by itself;
    this is for other programs.
    """
    configure_logs(level=settings.log_level, style="auto")
    package = prepare_model(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(package.graph.parent.iterdir()):
            if file.is_file():
                shutil.copy2(file, folder / file.name)
        shutil.copy2(package.tokenizer, folder / "tokenizer.json")
        described = {**asdict(package.spec), "layout": package.layout}
        (folder / "spec.json").write_text(json.dumps(described, indent=1), "utf-8")
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be written ({error.strerror})") from error
    click.echo(f"{package.spec.name} written to {folder}")
