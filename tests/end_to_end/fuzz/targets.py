"""The parsers of files that others made; each target writes a mutated file and reads it as the server would.

A parser may refuse a file by an error of ours (`NestvecError`), which names what is wrong; anything else is a finding.
"""

import contextlib
import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.api.requests.report_request import parse_lines
from nestvec.assembly.package import CHECKOUT_CARDS
from nestvec.cli.corpus.verify import command as verify
from nestvec.corpus.reading.readers import READERS, read_records
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reports.model_card import card_page
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation
from nestvec.errors import InputError, NestvecError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.quantization import read_quantization
from nestvec.export.graph.weights import Weights
from nestvec.jobs.lines import check_lines, read_lines, request_of
from nestvec.jobs.types import JobLimits
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.model_store.artefacts.execution_settings import read_execution_settings
from nestvec.model_store.artefacts.kept_reports import read_quality, read_reports
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.model_store.artefacts.term_counts import read_term_table
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.remote_code import with_code
from nestvec.model_store.folder.router import read_routes
from nestvec.model_store.folder.static_folders import find_static
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes
from nestvec.model_store.heads.chat_templates import (
    folder_chat_template,
    has_pair_roles,
    read_pair_template,
)
from nestvec.model_store.pruning.tokens import TokenizerModel
from nestvec.model_store.sources.adapters import read_adapter
from nestvec.model_store.sources.card import read_card
from nestvec.system.json_files import read_json
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.quality.labelled_texts import read_concepts, read_labelled, read_text_pairs

from tests.end_to_end.fuzz import vision_language
from tests.end_to_end.fuzz.documents import read_document, write_documents
from tests.end_to_end.fuzz.mutate import as_json, mutated_bytes, mutated_json
from tests.end_to_end.fuzz.pictures import read_picture, sample_pictures, write_picture
from tests.end_to_end.fuzz.preprocessors import read_preprocessor, write_preprocessor
from tests.end_to_end.fuzz.word_tables import pristine_tables, read_table, write_table
from tests.model_store.heads.yes_no import CHAT_TEMPLATES
from tests.support.tiny import CONFIG, write_tiny_bert
from tests.support.torch_files import torch_bytes
from tests.tools.planning.machines import real_machine

TEXTS = ["", "alpha beta", "é漢字 🙂\u0301", "[MASK] ##a", "a" * 500]
TESTS = Path(__file__).parents[2]
LIMITS = JobLimits(max_line_bytes=4096)


@dataclass(frozen=True)
class ParserTarget:
    """A parser to test.

    Attributes:
        prepare: Writes what does not change, once.
        write: Writes a mutated file.
        read: Reads it; raises `NestvecError` where it refuses the file.
    """

    prepare: Callable[[Path], Any]
    write: Callable[[Path, Any, random.Random], None]
    read: Callable[[Path], object]


def half_and_half(content: bytes, chooser: random.Random) -> bytes:
    """Mutate the structure of a JSON file, or its bytes."""
    if chooser.random() < 0.7:
        return as_json(mutated_json(json.loads(content), chooser))
    return mutated_bytes(content, chooser)


# Model cards.


def _cards(folder: Path) -> list[bytes]:
    del folder
    return [path.read_bytes() for path in sorted(CHECKOUT_CARDS.glob("*.toml"))]


def _write_card(folder: Path, cards: list[bytes], chooser: random.Random) -> None:
    content = chooser.choice(cards)
    if chooser.random() < 0.5:
        lines = content.splitlines()
        index = chooser.randrange(len(lines))
        name = lines[index].split(b"=")[0]
        values = [
            b"1",
            b'"x"',
            b"[1, 'a']",
            b"{}",
            b"-1",
            b"1e999",
            b"true",
            b"[[]]",
            b"{ x = [1] }",
        ]
        lines[index] = name + b"= " + chooser.choice(values)
        content = b"\n".join(lines)
    else:
        content = mutated_bytes(content, chooser)
    (folder / "card.toml").write_bytes(content)


# Weights.


def _tiny(folder: Path) -> Path:
    return write_tiny_bert(folder / "pristine")


def _write_weights(folder: Path, pristine: Path, chooser: random.Random) -> None:
    content = (pristine / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    if chooser.random() < 0.6:
        header = as_json(mutated_json(json.loads(header), chooser))
        size = chooser.choice((len(header), len(header), 0, 1, 2**63 - 1, len(content) * 2))
        content = struct.pack("<Q", size) + header + data[: chooser.choice((len(data), 10, 0))]
    else:
        content = mutated_bytes(content[: 8 + length + 256], chooser) + data[256:]
    (folder / "model.safetensors").write_bytes(content)
    if chooser.random() < 0.2:
        index = {"weight_map": {"a": "model.safetensors", "b": "../x.safetensors"}}
        (folder / "model.safetensors.index.json").write_bytes(
            half_and_half(as_json(index), chooser)
        )
    else:
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)


def _read_weights(folder: Path) -> object:
    with Weights(folder) as weights:
        for name in weights.names():
            with suppress(NestvecError):
                weights.shape(name)
                weights.get(name, weights.shape(name))
        return weights.names()


def _torch_files(folder: Path) -> list[bytes]:
    """A checkpoint that torch wrote, and small ones, in which a mutation hits the pickle more often."""
    state = (TESTS / "export/torch_files/state.bin").read_bytes()
    small = torch_bytes({"w": np.ones((2, 2), np.float32), "v": np.ones(3, np.float16)})
    return [state, small, small]


def _write_torch_file(folder: Path, files: list[bytes], chooser: random.Random) -> None:
    content = chooser.choice(files)
    if chooser.random() < 0.5:
        content = mutated_bytes(content, chooser)
    else:
        # The pickle alone is changed, in an archive that is whole.
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            held = {name: packed.read(name) for name in packed.namelist()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as packed:
            for name, part in held.items():
                is_pickle = name.endswith("data.pkl")
                packed.writestr(name, mutated_bytes(part, chooser) if is_pickle else part)
        content = file.getvalue()
    (folder / "pytorch_model.bin").write_bytes(content)


def _write_chat_template(folder: Path, _: None, chooser: random.Random) -> None:
    template = chooser.choice(list(CHAT_TEMPLATES.values())).encode()
    (folder / "chat_template.jinja").write_bytes(mutated_bytes(template, chooser))


def _read_chat_template(folder: Path) -> object:
    template = folder_chat_template(folder)
    assert template is not None
    has_pair_roles(template)
    return read_pair_template(template, "folder").around("a", None)


# Tokenizers.


def _write_tokenizer(folder: Path, pristine: Path, chooser: random.Random) -> None:
    content = (pristine / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(half_and_half(content, chooser))


def _read_tokenizer(folder: Path) -> object:
    tokenizer = Tokenizer(
        folder / "tokenizer.json", max_tokens=24, vocabulary_size=CONFIG["vocab_size"]
    )
    encoded = []
    for text in TEXTS:
        with suppress(InputError):
            encoded.append(tokenizer.encode_texts([text], TokenizeOptions(Truncation.END)))
    model = TokenizerModel.read(read_json(folder / "tokenizer.json"))
    kept = sorted(model.ids[token] for token in model.needed(["alpha"], frozenset()))
    return encoded, model.pruned({old: new for new, old in enumerate(kept)})


# What stands beside a tokenizer.

BESIDE: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer",
        "add_eos_token": True,
        "eos_token": "[SEP]",
        "bos_token": {"content": "[CLS]", "lstrip": True},
        "do_lower_case": False,
        "added_tokens_decoder": {"40": {"content": "[unused0]", "special": False}},
    },
    "special_tokens_map.json": {"sep_token": {"content": "[SEP]"}, "mask_token": "[MASK]"},
    "added_tokens.json": {"[unused1]": 41},
    "sentence_bert_config.json": {"do_lower_case": True},
}


def _write_beside(folder: Path, pristine: Path, chooser: random.Random) -> None:
    shutil.copyfile(pristine / "tokenizer.json", folder / "tokenizer.json")
    if chooser.random() < 0.3:
        _write_tokenizer(folder, pristine, chooser)
    mutated = chooser.choice(list(BESIDE))
    classes = ("BertTokenizer", "LlamaTokenizer", "MPNetTokenizer", None)
    for name, fields in BESIDE.items():
        if name == "tokenizer_config.json":
            fields = {**fields, "tokenizer_class": chooser.choice(classes)}  # noqa: PLW2901
            if chooser.random() < 0.5:
                fields.pop("added_tokens_decoder")
        content = json.dumps(fields).encode()
        (folder / name).write_bytes(half_and_half(content, chooser) if name == mutated else content)


def _read_beside(folder: Path) -> object:
    changes = read_tokenizer_changes(folder, CONFIG, CONFIG["vocab_size"])
    path = folder / "tokenizer.json"
    return Tokenizer(path, max_tokens=24, vocabulary_size=CONFIG["vocab_size"], changes=changes)


# What a model's folder says of itself.

DERIVED = (
    *("config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer_config.json"),
)


def _write_folder(folder: Path, pristine: Path, chooser: random.Random) -> None:
    for name in DERIVED:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if (pristine / name).exists():
            shutil.copyfile(pristine / name, path)
        else:
            path.unlink(missing_ok=True)
    for name in ("tokenizer.json", "model.safetensors"):
        if not (folder / name).exists():
            shutil.copyfile(pristine / name, folder / name)
    name = chooser.choice(DERIVED)
    content = (pristine / name).read_bytes() if (pristine / name).exists() else b'{"prompts": {}}'
    (folder / name).write_bytes(half_and_half(content, chooser))


# The routes of a Router.

ROUTER = {
    "types": {"q": "sentence_transformers.models.StaticEmbedding", "": "MLMTransformer", "1": "x"},
    "structure": {"query": ["q"], "document": ["", "1"]},
    "parameters": {
        "default_route": "document",
        "allow_empty_key": True,
        "route_mappings": {"('query', 'text')": "query", "(None, None)": "document"},
    },
}


def _write_router(folder: Path, _: None, chooser: random.Random) -> None:
    (folder / "router_config.json").write_bytes(half_and_half(json.dumps(ROUTER).encode(), chooser))


def _write_preprocessor(folder: Path, _: None, chooser: random.Random) -> None:
    write_preprocessor(folder, half_and_half, chooser)


# What config.json says of a family, of its authors' code and of quantised weights.

FAMILIES = Path(__file__).parents[2] / "export/families"
FAMILY_FIELDS = {
    "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model", "AutoConfig": "configuration.NewConfig"},
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "strategy": "block"}}},
    },
    "is_causal": True,
    "use_sliding_window": True,
}


def _families(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [json.loads(path.read_text())["config"] for path in sorted(FAMILIES.glob("*.json"))]


def _write_family(folder: Path, configs: list[dict[str, Any]], chooser: random.Random) -> None:
    config = {**chooser.choice(configs), **FAMILY_FIELDS}
    (folder / "config.json").write_bytes(as_json(mutated_json(config, chooser)))


def _read_family(folder: Path) -> object:
    config = read_json(folder / "config.json")
    with suppress(NestvecError):
        read_quantization(config)
    family = architecture_of(config)
    with suppress(NestvecError):
        with_code(config, family, {})
    return ARCHITECTURES[family].dimensions(config) if family in ARCHITECTURES else None


# Lines of batches and of corpora.


def _lines(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [
        {
            "custom_id": f"id{n}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": ["alpha", "beta"], "dimensions": 8, "text": "x"},
            "text": "alpha",
            "id": n,
        }
        for n in range(4)
    ]


def _write_lines(folder: Path, lines: list[dict[str, Any]], chooser: random.Random) -> None:
    rows = [
        as_json(mutated_json(line, chooser) if chooser.random() < 0.7 else line) for line in lines
    ]
    content = chooser.choice((b"\n", b"\r\n", b"\n\n", b"\x0b")).join(rows)
    if chooser.random() < 0.4:
        content = mutated_bytes(content, chooser)
    if chooser.random() < 0.1:
        content = b"\xef\xbb\xbf" + content
    (folder / "lines.jsonl").write_bytes(content)


def _read_batch(folder: Path) -> object:
    path = folder / "lines.jsonl"
    check = check_lines(path, "/v1/embeddings", LIMITS)
    if check.problems:
        return check
    return [request_of(line) for line in read_lines(path, LIMITS.max_line_bytes)]


def _report_lines(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [
        {"text": "alpha", "label": "x"},
        {"reference": "beta"},
        {"pair": ["alpha", "beta"]},
        {"text": "\ud800 gamma"},
    ]


def _read_report(folder: Path) -> object:
    return parse_lines((folder / "lines.jsonl").read_bytes())


def _read_corpus(folder: Path) -> object:
    columns = Columns(text="text", id=None)
    records: list[object] = []
    for kind in set(READERS) & {".jsonl", ".txt", ".csv", "jsonl", "txt", "csv"}:
        with suppress(NestvecError):
            records += read_records(folder / "lines.jsonl", columns, kind)
    return records


# Files of our own that others may have touched.


def _keys(folder: Path) -> bytes:
    file = KeyFile.read(folder / "made.json")
    file.add("one", KeyLimits(models=("a",), requests_per_s=1))
    file.add("two", KeyLimits(monthly_tokens=5))
    file.write()
    return file.path.read_bytes()


def _write_keys(folder: Path, content: bytes, chooser: random.Random) -> None:
    (folder / "keys.json").write_bytes(half_and_half(content, chooser))


ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["query", "value"],
    "bias": "none",
    "fan_in_fan_out": False,
}
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


def _write_adapter(folder: Path, _: None, chooser: random.Random) -> None:
    content = as_json(mutated_json(ADAPTER, chooser))
    (folder / "adapter_config.json").write_bytes(content)


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


def _nothing(_: Path) -> None:
    return None


MANIFEST = {
    "format": "nestvec-run/1",
    "target": "out.npy",
    "vectors": {"space": "a"},
    "sources": [{"path": "run.json", "bytes": 1, "sha256": "00"}],
    "files": [{"path": "../out.npy", "bytes": 1, "sha256": "00"}],
    "content": {"rows": 1, "sha256_sum": "00"},
    "signature": {"algorithm": "ed25519", "public_key": "A" * 43 + "=", "value": "A" * 86 + "=="},
}


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


TARGETS: dict[str, ParserTarget] = {
    "card": ParserTarget(_cards, _write_card, lambda folder: read_card(folder / "card.toml")),
    "safetensors": ParserTarget(_tiny, _write_weights, _read_weights),
    "torch checkpoint": ParserTarget(_torch_files, _write_torch_file, _read_weights),
    "chat template": ParserTarget(_nothing, _write_chat_template, _read_chat_template),
    "tokenizer": ParserTarget(_tiny, _write_tokenizer, _read_tokenizer),
    "beside tokenizer": ParserTarget(_tiny, _write_beside, _read_beside),
    "folder": ParserTarget(
        _tiny, _write_folder, lambda folder: (read_model_folder(folder, {}), find_static(folder))
    ),
    "router": ParserTarget(_nothing, _write_router, read_routes),
    "vision language": ParserTarget(
        vision_language.prepare, vision_language.write, vision_language.read
    ),
    "preprocessor": ParserTarget(_nothing, _write_preprocessor, read_preprocessor),
    "families": ParserTarget(_families, _write_family, _read_family),
    "batch lines": ParserTarget(_lines, _write_lines, _read_batch),
    "report lines": ParserTarget(_report_lines, _write_lines, _read_report),
    "corpus": ParserTarget(_lines, _write_lines, _read_corpus),
    "pictures": ParserTarget(sample_pictures, write_picture, read_picture),
    "documents": ParserTarget(_nothing, write_documents, read_document),
    "keys": ParserTarget(_keys, _write_keys, lambda folder: KeyFile.read(folder / "keys.json")),
    "adapter": ParserTarget(_nothing, _write_adapter, read_adapter),
    "manifest": ParserTarget(_nothing, _write_manifest, _read_manifest),
    "word tables": ParserTarget(pristine_tables, write_table, read_table),
    "stored": ParserTarget(_nothing, _write_stored, _read_stored),
    "coefficients": ParserTarget(
        _nothing,
        _write_coefficients,
        lambda folder: MachineCoefficients.read(folder / "machine.json"),
    ),
}


def cases(name: str, folder: Path, seed: int) -> Iterator[BaseException | None]:
    """Run a target for as long as the iterator is asked; gives an error that it should not have raised, or None."""
    target = TARGETS[name]
    chooser = random.Random(f"{name} {seed}")
    prepared = target.prepare(folder)
    while True:
        target.write(folder, prepared, chooser)
        try:
            target.read(folder)
        except NestvecError as error:
            yield None if error.message else AssertionError("an error without a message")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            yield error
        else:
            yield None
