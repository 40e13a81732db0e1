"""Wheels of a tiny model for pip to find without a network."""

import hashlib
import zipfile
from pathlib import Path

from tests.support.tiny import write_tiny_bert

INSIDE = "tiny_package/data/tiny"
HASHED = ("model.safetensors", "tokenizer.json", "config.json")


def write_wheel(folder: Path, *, version: str = "1.0") -> dict[str, str]:
    """Write tiny_package's wheel into a folder; return the hashes of its files."""
    model = write_tiny_bert(folder / "unpacked")
    hashes = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in HASHED}
    info = f"tiny_package-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_package-{version}-py3-none-any.whl", "w") as wheel:
        for file in sorted(p for p in model.rglob("*") if p.is_file()):
            wheel.write(file, f"{INSIDE}/{file.relative_to(model)}")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-package\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashes


def write_card(folder: Path, hashes: dict[str, str], *, path: str = INSIDE) -> None:
    """Write a card for that wheel."""
    lines = [
        'name = "tiny"',
        "[source]",
        'kind = "pypi"',
        'name = "tiny-package"',
        'version = "1.0"',
    ]
    lines += [f'path = "{path}"', "[source.sha256]"]
    lines += [f'"{name}" = "{value}"' for name, value in hashes.items()]
    (folder / "tiny.toml").write_text("\n".join(lines) + "\n")
