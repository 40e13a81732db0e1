"""`nestvec verify MANIFEST`: checks what a run's manifest says against what is there."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import click

from nestvec.corpus.manifest import (
    changed_files,
    check_signature,
    digest_rows,
    read_manifest,
    read_public_key,
)
from nestvec.corpus.stores.registry import find_store
from nestvec.errors import FormatError


@click.command("verify")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Whose signature it must bear: an Ed25519 key as PEM.",
)
@click.option(
    "--target", help="Where the vectors are now; default: where the manifest says they went."
)
@click.option("--skip-sources", is_flag=True, help="Do not read the files that were embedded.")
def command(
    *, manifest: Path, public_key: Path | None, target: str | None, skip_sources: bool
) -> None:
    """Check the MANIFEST of a run (`nestvec embed --manifest`): its signature, its inputs, and what it made.

    Of a file of vectors the bytes are compared, of a vector store the documents, their content hashes and the number of
    rows, but not the vectors. Paths are taken from the folder that the command runs in. Without --public-key a
    signature shows only that the manifest was not changed after it was signed, by whomever.
    """
    said, signature = read_manifest(manifest)
    click.echo(_signed(said, signature, public_key))
    problems = [] if skip_sources else changed_files(_list(said, "sources"), Path())
    if not skip_sources and not problems:
        click.echo(f"sources: {len(_list(said, 'sources'))} files as they were")
    found = _check_target(said, target)
    problems += found
    if not found:
        click.echo(f"target: {target or said.get('target')} is as the run left it")
    if problems:
        raise FormatError("the manifest does not hold:\n" + "\n".join(f"  {p}" for p in problems))


def _signed(said: dict[str, Any], signature: dict[str, Any] | None, public_key: Path | None) -> str:
    """Check the signature; returns what to say of it.

    Raises:
        FormatError: It is wrong, another's, or there is none and one is asked for.
    """
    if signature is None:
        if public_key is not None:
            raise FormatError("the manifest is not signed")
        return "signature: none"
    key = check_signature(said, signature)
    name = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    if public_key is None:
        return f"signature: good, by the key SHA256:{name}, which is not known to be anybody's (--public-key)"
    if key != read_public_key(public_key):
        raise FormatError(f"{public_key}: the manifest was signed by another key, SHA256:{name}")
    return f"signature: good, by {public_key}"


def _check_target(said: dict[str, Any], target: str | None) -> list[str]:
    """Return what is not as the run left it."""
    files = _list(said, "files")
    if target is not None and files:
        # Moved: the same names, in another folder.
        folder = Path(target).parent
        files = [{**entry, "path": str(folder / Path(entry["path"]).name)} for entry in files]
    problems = changed_files(files, Path())
    if "content" not in said:
        return problems
    address = target or str(said.get("target"))
    kind = find_store(address)
    if kind is None:
        raise FormatError(f"{address}: no vector store; --target names where it is now")
    reader = kind.read(address)
    try:
        space = reader.metadata.get("nestvec.space")
        now = digest_rows(reader.stored())
    finally:
        reader.close()
    vectors, content = said.get("vectors"), said["content"]
    if not isinstance(vectors, dict) or not isinstance(content, dict):
        raise FormatError("the manifest does not say what the store held")
    if space != vectors.get("space"):
        problems.append(f"{address}: holds vectors of space {space}, not {vectors.get('space')}")
    if now != content:
        problems.append(
            f"{address}: holds {now['rows']} rows, of then {content.get('rows')}"
            + (", of other contents" if now["rows"] == content.get("rows") else "")
        )
    return problems


def _list(said: dict[str, Any], key: str) -> list[Any]:
    """Return a manifest's list, empty where there is none.

    Raises:
        FormatError: It is no list.
    """
    value = said.get(key, [])
    if not isinstance(value, list):
        raise FormatError(f"the manifest's '{key}' is no list")
    return value
