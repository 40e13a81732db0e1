"""Settings to the watch over what a server is asked for."""

from collections.abc import Sequence

from nestvec.config.settings import Settings
from nestvec.corpus.reports.drift_watch import MIN_SAMPLE, DriftObserver, DriftWatch
from nestvec.corpus.reports.reading import ReportFiles
from nestvec.engine.front.vector_sampler import VectorSampler
from nestvec.engine.service import EmbeddingService
from nestvec.errors import FormatError


def read_reference(settings: Settings) -> Sequence[str]:
    """Return the texts of reference that the settings name; none where they name none. Blocks.

    Raises:
        FormatError: The file cannot be read, or has too few texts.
    """
    if settings.drift_reference is None:
        return ()
    try:
        texts = ReportFiles(reference=[str(settings.drift_reference)]).read().reference
    except FormatError as error:
        raise FormatError(f"drift_reference: {error.message}") from error
    if len(texts) < MIN_SAMPLE:
        raise FormatError(
            f"drift_reference: {len(texts)} texts; at least {MIN_SAMPLE} tell anything"
        )
    return texts


def build_drift_watch(
    settings: Settings, texts: Sequence[str], service: EmbeddingService, observer: DriftObserver
) -> DriftWatch:
    """Return the watch over a service that the settings ask for.

    Args:
        settings: Settings of the server.
        texts: Texts of reference.
        service: What is watched.
        observer: Told what is found.
    """
    role = None if settings.drift_role == "default" else settings.drift_role
    return DriftWatch(service, VectorSampler(role), texts, observer, settings.drift_interval_s)
