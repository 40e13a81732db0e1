"""`nestvec export`: writes a model's graph, tokenizer and probes to a folder."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from nestvec.assembly.package import prepare_model
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.engine.types import Layout
from nestvec.errors import ArtefactError
from nestvec.model_store.package import write_padded_graph
from nestvec.model_store.sources.file_names import TOKENIZER_FILES
from nestvec.observability.logs import configure_logs

# Files that other programs look for beside a graph.
COPIED_FILES: Final = ("tokenizer.json", *TOKENIZER_FILES, "config.json")


@click.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--padded",
    is_flag=True,
    help="Write a graph of standard ONNX with the usual inputs (input_ids, attention_mask, token_type_ids) instead.",
)
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "log_level"),
    *("precision", "calibration_file", "weight_storage", "provider", "device_id"),
)
def command(settings: Settings, *, folder: Path, padded: bool) -> None:
    """Write the model's ONNX graph, weights and tokenizer to FOLDER.

    The graph is packed and comes with its probes; `spec.json` beside it says what it takes and gives. `nestvec serve`
    exports by itself; this is for other programs.
    """
    configure_logs(level=settings.log_level, style="auto")
    package = prepare_model(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if padded:
            write_padded_graph(package, folder)
        else:
            for file in sorted(package.graph.parent.iterdir()):
                if file.is_file():
                    shutil.copy2(file, folder / file.name)
        for name in COPIED_FILES:
            if (package.folder.tokenizer_path.parent / name).is_file():
                shutil.copy2(package.folder.tokenizer_path.parent / name, folder / name)
        layout = Layout.PADDED if padded else package.layout
        description = {**asdict(package.spec), "layout": layout}
        (folder / "spec.json").write_text(json.dumps(description, indent=1), "utf-8")
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be written ({error.strerror})") from error
    click.echo(f"{package.spec.name} written to {folder}")
