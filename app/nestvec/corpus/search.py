"""Searches what `nestvec embed` made: the query is embedded as the texts were, and the nearest rows are returned."""

import asyncio
from collections.abc import Mapping

from nestvec.corpus.embedders import CorpusEmbedder, TextOptions
from nestvec.corpus.store_writer import Hit, StoreReader
from nestvec.engine.dtypes import OutputDtype
from nestvec.errors import FormatError, InputError


async def search_store(
    source: CorpusEmbedder,
    reader: StoreReader,
    query: str,
    limit: int,
    prompt_name: str | None = None,
) -> list[Hit]:
    """Return the rows of a store that are nearest to a text, the best first.

    Args:
        source: The engine or server with the store's model.
        reader: The store.
        query: The text.
        limit: Most rows.
        prompt_name: One of the model's prompts; None takes the one for queries, where it has one.

    Raises:
        FormatError: The store's vectors are of another space than the model's, or of a kind that is not searched.
        InputError: The model refuses the query.
    """
    metadata = reader.metadata
    options = query_options(metadata, prompt_name)
    try:
        model = await source.model(options)
    except InputError as error:
        raise FormatError(f"this is not the model of the store: {error.message}") from error
    if model.space != metadata["nestvec.space"]:
        raise FormatError(
            f"the store's vectors are of space {metadata['nestvec.space']} "
            f"(model {metadata.get('nestvec.model', '')}), those of {model.name} here of {model.space}: give the "
            "model and settings of then"
        )
    if metadata.get("nestvec.quantization", model.quantization) != model.quantization:
        raise FormatError(
            f"the store's {options.output_dtype} vectors were made with other ranges than {model.name} has here; give "
            "the calibration file of then"
        )
    embedded = await source.embed([query], options)
    return await asyncio.to_thread(reader.search, embedded.vectors[0], limit)


def query_options(metadata: Mapping[str, str], prompt_name: str | None) -> TextOptions:
    """Return the options by which a store's texts were embedded, for a query.

    Raises:
        FormatError: The store has no dense vectors, or none that nestvec wrote.
    """
    if "nestvec.space" not in metadata:
        raise FormatError("nestvec did not write this store, so its model is not known")
    if (output := metadata.get("nestvec.output", "dense")) != "dense":
        raise FormatError(f"{output} outputs are not searched here")
    try:
        # Vectors with labels are whole.
        is_cut = "nestvec.labels" not in metadata
        return TextOptions(
            dimensions=int(metadata["nestvec.dimensions"]) if is_cut else None,
            output_dtype=OutputDtype(metadata.get("nestvec.output_dtype", "float32")),
            prompt_name=prompt_name,
            prompt_role=None if prompt_name else "query",
            layers=int(metadata["nestvec.layers"]) if "nestvec.layers" in metadata else None,
            map_name=metadata.get("nestvec.map"),
        )
    except (ValueError, KeyError) as error:
        raise FormatError("what the store says of its vectors cannot be read") from error
