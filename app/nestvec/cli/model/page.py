"""The page of a model on this disk: what it is, and what was measured of it here."""

from typing import Any

from nestvec.assembly.package import prepare_model
from nestvec.config.settings import Settings
from nestvec.corpus.reports.model_card import card_markdown
from nestvec.model_store.artefacts.kept_reports import read_quality, read_reports


def model_page(settings: Settings, name: str) -> str:
    """Return the page of a model as Markdown; it is fetched and exported first where need be.

    Raises:
        ModelError: It cannot be had.
    """
    package = prepare_model(settings.model_copy(update={"model": name}))
    spec = package.spec
    described: dict[str, Any] = {
        "id": spec.name,
        "architecture": spec.architecture,
        "parameters": spec.parameters or None,
        "dimensions": {"native": spec.hidden_size, "trained": list(spec.trained_dimensions)},
        "max_model_len": spec.max_tokens,
        "outputs": list(spec.kinds),
        "pooling": spec.pooling,
        "prompts": sorted(spec.prompts),
        "precision": spec.precision,
        "provider": "as the server is set up",
        "license": spec.license,
        "languages": list(spec.languages),
        "source": spec.source,
        "space": spec.space,
        "quality": read_quality(package.artefact),
        "reports": read_reports(package.artefact),
    }
    return card_markdown(described)
