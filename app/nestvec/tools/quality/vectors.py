"""Pooled vectors of many texts and pictures by the engine of this process, of texts with all exits of one pass."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.corpus.reports.subjects import LocalService, bulk_call, in_calls
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError, InputError

# Of one call: with their files in memory.
PICTURES_AT_ONCE: Final = 32


class ModelVectors(LocalService):
    """Embeds texts by the one model of a service of this process."""

    @property
    def model(self) -> ServedModel:
        """The served model."""
        return self._service.models.resolve("")

    @property
    def width(self) -> int:
        """Dimensions of full vectors."""
        core = self.model.core
        return core.pooler.vector_width(core.backend_info.hidden_size)

    @property
    def exits(self) -> tuple[int, ...]:
        """Every number of layers that may be run, rising; empty where there is no choice."""
        return tuple(range(1, self.model.core.backend_info.layers + 1))

    def raw(
        self,
        texts: Sequence[str],
        exits: Sequence[int] = (),
        *,
        role: str | None = None,
        is_counted: bool = True,
    ) -> FloatArray:
        """Return pooled vectors, not of unit length; texts that are too long lose their end.

        Args:
            texts: The N texts.
            exits: Numbers of layers, E of them; empty runs all layers.
            role: "query" or "passage", for the model's own prompts.
            is_counted: Whether the texts count as progress.

        Returns:
            `[E, N, H]`, float32; E is 1 without exits.
        """
        call = replace(
            bulk_call(texts, role),
            layers=() if tuple(exits) == self.exits[-1:] else tuple(exits),
            map_id="",
            normalize=False,
        )
        on_progress = self.on_progress if is_counted else _ignore
        results = self._runner.run(in_calls(self._service.embed, call, on_progress))
        flat = np.concatenate([result.vectors for result in results])
        return flat.reshape(len(texts), max(1, len(call.layers)), -1).transpose(1, 0, 2)

    def raw_of(self, inputs: Sequence[str | Path], *, role: str | None = None) -> FloatArray:
        """Return pooled vectors, [N, H], float32, of texts, or of files of pictures: of one kind.

        Raises:
            FormatError: The model takes texts only, or a picture cannot be read; names the file.
        """
        paths = [each for each in inputs if isinstance(each, Path)]
        if paths:
            return self.raw_pictures(paths)
        vectors: FloatArray = self.raw([str(each) for each in inputs], role=role)[0]
        return vectors

    def raw_pictures(self, paths: Sequence[Path]) -> FloatArray:
        """Return pooled vectors of pictures, [N, H], float32, not of unit length; a few files are in memory at a time.

        Raises:
            FormatError: The model takes texts only, or a picture cannot be read; names the file.
        """
        spec = self.model.spec
        if spec.pictures is None:
            raise FormatError(f"{spec.name} takes texts only, and no pictures")
        rows = []
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            some = paths[start : start + PICTURES_AT_ONCE]
            call = replace(bulk_call((), None), map_id="", normalize=False)
            try:
                inputs = [Picture(path.read_bytes()) for path in some]
                rows.append(self._runner.run(self._service.embed(replace(call, inputs=inputs))))
            except InputError as error:
                named = "" if error.input_index is None else f"{some[error.input_index]}: "
                raise FormatError(f"{named}{error.message}") from error
            except OSError as error:
                raise FormatError(f"{error.filename}: cannot be read ({error.strerror})") from error
            self.on_progress(len(some))
        return np.concatenate([np.asarray(result.vectors, np.float32) for result in rows])


def _ignore(texts: int) -> None:
    """Do nothing with progress that is not counted."""
