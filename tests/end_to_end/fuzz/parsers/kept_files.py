"""Files of our own that others may have touched: keys, what is kept beside a model, manifests, coefficients."""

import contextlib
import io
import json
import random
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.cli.corpus.verify import command as verify
from nestvec.corpus.reports.model_card import card_page
from nestvec.errors import NestvecError
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.model_store.artefacts.execution_settings import read_execution_settings
from nestvec.model_store.artefacts.kept_reports import read_quality, read_reports
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.model_store.artefacts.term_counts import read_term_table
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.quality.labelled_texts import read_concepts, read_labelled, read_text_pairs

from tests.end_to_end.fuzz.mutate import as_json, half_and_half, mutated_bytes, mutated_json
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget, nothing
from tests.tools.planning.machines import real_machine

CARD = {"id": "m", "dimensions": {"native": 8, "trained": []}}
STORED = {
    "tuning.json": {"machine": "x", "max_batch_tokens": 256, "worker_threads": 2},
    "quality.json": {"recommendations": [{"text": "x"}]},
    "report-drift.json": {
        "report": "drift",
        "title": "t",
        "model": "m",
        "space": "s",
        "seed": 7,
        "texts_of": None,
        "nestvec": "1",
        "made_s": 1,
        "method": "m",
        "notes": ["a"],
        "advice": [],
        "figures": [
            {
                "name": "a",
                "value": 0.5,
                "n": 9,
                "low": 0.4,
                "high": 0.6,
                "p": None,
                "unit": "share",
                "better": "",
            }
        ],
    },
}


LABEL_LINES = "law\na judge\tspoke\r\nart\tein Bild é\n\nlaw\tart\n".encode()
LABELLED_MAP = {
    "name": "topics",
    "kind": "concepts",
    "source": "0" * 32,
    "target": "",
    "target_model": "",
    "layers": 0,
    "takes_unit": True,
    "figures": {"labels": 2.0},
    "labels": ["law", "art"],
    "template": "a text about {}",
    "label_calibration": {"temperature": 0.05, "count": 4},
}
MANIFEST = {
    "format": "nestvec-run/1",
    "target": "out.npy",
    "vectors": {"space": "a"},
    "sources": [{"path": "run.json", "bytes": 1, "sha256": "00"}],
    "files": [{"path": "../out.npy", "bytes": 1, "sha256": "00"}],
    "content": {"rows": 1, "sha256_sum": "00"},
    "signature": {"algorithm": "ed25519", "public_key": "A" * 43 + "=", "value": "A" * 86 + "=="},
}


def _keys(folder: Path) -> bytes:
    file = KeyFile.read(folder / "made.json")
    file.add("one", KeyLimits(models=("a",), requests_per_s=1))
    file.add("two", KeyLimits(monthly_tokens=5))
    file.write()
    return file.path.read_bytes()


def _write_keys(folder: Path, content: bytes, chooser: random.Random) -> None:
    (folder / "keys.json").write_bytes(half_and_half(content, chooser))


def _write_stored(folder: Path, _: None, chooser: random.Random) -> None:
    for name, value in STORED.items():
        (folder / name).write_bytes(half_and_half(as_json(value), chooser))
    maps = folder / "maps"
    maps.mkdir(exist_ok=True)
    (maps / "one.npz").write_bytes(mutated_bytes(b"PK\x03\x04" + bytes(200), chooser))
    np.save(maps / "two.npy", np.zeros(3))
    _write_labelled_map(maps / "three.npz", chooser)
    counts: dict[str, Any] = {
        "counts": np.arange(3),
        "special_ids": [0],
        "documents": 2,
        "tokens": 5,
        "source": "0",
    }
    if chooser.random() < 0.7:
        name = chooser.choice(sorted(counts))
        values = [np.full(3, -1), np.zeros((3, 1)), np.array("x"), np.array(2**63), np.array([])]
        counts[name] = chooser.choice(values)
    with (folder / "term-counts.npz").open("wb") as file:
        np.savez(file, **counts)
    (folder / "labels.tsv").write_bytes(mutated_bytes(LABEL_LINES, chooser))


def _write_labelled_map(path: Path, chooser: random.Random) -> None:
    """Write a map of two labels whose description, or one of whose arrays, is not what it was."""
    meta = LABELLED_MAP if chooser.random() < 0.2 else mutated_json(LABELLED_MAP, chooser)
    arrays: dict[str, Any] = {
        "weight": np.eye(3, 2, dtype=np.float32),
        "bias": np.zeros(2, np.float32),
        "calibration": np.zeros((0, 2), np.float32),
        "label_scores": np.linspace(0, 1, 4),
        "label_sigmoids": np.ones((2, 2)),
        "label_thresholds": np.ones(2),
    }
    if chooser.random() < 0.5:
        values = [np.zeros((2, 2)), np.array("x"), np.array([]), np.array([np.nan, 1, 2, 3])]
        arrays[chooser.choice(sorted(arrays))] = chooser.choice(values)
    with path.open("wb") as file:
        np.savez(file, **arrays, meta=np.array(as_json(meta).decode("utf-8", "replace")))


def _read_stored(folder: Path) -> object:
    # What maps are fitted from.
    for read in (read_concepts, read_text_pairs, partial(read_labelled, labels=["law", "art"])):
        with suppress(NestvecError):
            read(folder / "labels.tsv")
    measured = read_quality(folder), card_page({**CARD, "reports": read_reports(folder)})
    read_term_table(folder, 3, "0")
    return read_execution_settings(folder, "x"), measured, read_maps(folder, "0" * 32)


def _write_manifest(folder: Path, _: None, chooser: random.Random) -> None:
    # A wrong signature is refused before anything else is looked at.
    dropped = [key for key in MANIFEST if chooser.random() < (0.5 if key == "signature" else 0.1)]
    said = {key: value for key, value in MANIFEST.items() if key not in dropped}
    (folder / "run.json").write_bytes(half_and_half(as_json(said), chooser))


def _read_manifest(folder: Path) -> None:
    assert verify.callback is not None
    with contextlib.redirect_stdout(io.StringIO()):
        verify.callback(
            manifest=folder / "run.json", public_key=None, target=None, skip_sources=False
        )


def _write_coefficients(folder: Path, _: None, chooser: random.Random) -> None:
    content = json.loads(real_machine().json_text())
    dropped = [key for key in content if chooser.random() < 0.05]
    kept = {key: value for key, value in content.items() if key not in dropped}
    (folder / "machine.json").write_bytes(half_and_half(as_json(kept), chooser))


TARGETS = {
    "keys": ParserTarget(_keys, _write_keys, lambda folder: KeyFile.read(folder / "keys.json")),
    "stored": ParserTarget(nothing, _write_stored, _read_stored),
    "manifest": ParserTarget(nothing, _write_manifest, _read_manifest),
    "coefficients": ParserTarget(
        nothing,
        _write_coefficients,
        lambda folder: MachineCoefficients.read(folder / "machine.json"),
    ),
}
