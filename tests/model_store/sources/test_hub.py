"""Models from the Hub, against a local stand-in, each in a process of its own.

huggingface_hub reads HF_ENDPOINT when it is imported, so the real library is driven by the real command.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.export.families.harness import load
from tests.model_store.sources.hub import COMMITS, StandIn, hub_server
from tests.support.tiny import write_json, write_tiny_bert, write_tokenizer
from tests.support.torch_files import save_torch

pytestmark = pytest.mark.process
REPO = "org/tiny-model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the repository's files, with some that nobody should fetch."""
    repository = write_tiny_bert(tmp_path / "repo")
    (repository / "pytorch_model.bin").write_bytes(b"a pickle")
    (repository / "modeling.py").write_text("raise SystemExit('remote code ran')")
    return repository


@pytest.fixture
def hub(folder: Path) -> Iterator[StandIn]:
    """Start the stand-in."""
    with hub_server(REPO, folder) as served:
        yield served


def pull(
    tmp_path: Path, hub: StandIn, *arguments: str, command: str = "pull"
) -> subprocess.CompletedProcess[str]:
    """Run `nestvec model pull` with an empty Hugging Face home."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "NESTVEC_CACHE_DIR": str(tmp_path / "cache"),
    }
    line = [sys.executable, "-m", "nestvec", "model", command, *arguments]
    return subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_repository_is_fetched_exported_and_then_served_without_network(
    tmp_path: Path, hub: StandIn
) -> None:
    """Only files that serving reads are requested: no pickle, no code."""
    done = pull(tmp_path, hub, REPO)
    assert done.returncode == 0, done.stderr
    assert f"hub {REPO}@{COMMITS['main']}" in done.stdout
    requests = "\n".join(hub.requests)
    assert "model.safetensors" in requests
    assert "pytorch_model" not in requests
    assert "modeling" not in requests
    hub.is_down = True
    hub.requests.clear()
    again = pull(tmp_path, hub, REPO, "--offline")
    assert again.returncode == 1
    served = subprocess.run(
        [sys.executable, "-m", "nestvec", "export", "--model", REPO, str(tmp_path / "out")],
        env={**os.environ, "HF_ENDPOINT": hub.url, "NESTVEC_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert served.returncode == 0, served.stderr
    assert hub.requests == []
    assert (tmp_path / "out/spec.json").is_file()


def test_an_encoder_in_a_folder_of_its_own_is_fetched(
    tmp_path: Path, folder: Path, hub: StandIn
) -> None:
    """The first versions of sentence-transformers wrote it there, with the settings of its lengths."""
    inside = folder / "0_Transformer"
    inside.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"):
        (folder / name).rename(inside / name)
    (inside / "sentence_bert_config.json").rename(inside / "sentence_roberta_config.json")
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace('"path": ""', '"path": "0_Transformer"'))
    done = pull(tmp_path, hub, REPO)
    assert done.returncode == 0, done.stderr
    assert "0_Transformer/sentence_roberta_config.json" in "\n".join(hub.requests)


def test_a_revision_is_pinned(tmp_path: Path, hub: StandIn) -> None:
    """A revision may be a tag; its commit is recorded."""
    done = pull(tmp_path, hub, REPO, "--model-revision", "v1")
    assert done.returncode == 0, done.stderr
    assert f"@{COMMITS['v1']}" in done.stdout


@pytest.mark.parametrize(
    ("name", "options"),
    [("org/absent", []), (REPO, ["--model-revision", "nope"])],
    ids=["no such repository", "no such revision"],
)
def test_what_is_not_there_is_a_clear_error(
    tmp_path: Path, hub: StandIn, name: str, options: list[str]
) -> None:
    """The error is one line without a traceback."""
    done = pull(tmp_path, hub, name, *options)
    assert done.returncode == 1
    assert f"the Hub did not give {name}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_of_pickles_alone_is_fetched_and_exported(
    tmp_path: Path, hub: StandIn, folder: Path
) -> None:
    """Weights as torch saves them are fetched where there are no others; still no code."""
    weights = folder / "model.safetensors"
    save_torch(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    done = pull(tmp_path, hub, REPO)
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" in "\n".join(hub.requests)
    assert "modeling" not in "\n".join(hub.requests)


def test_an_adapter_of_the_repository_is_exported(
    tmp_path: Path, hub: StandIn, folder: Path
) -> None:
    """Of Jina's fifth models: `task:NAME` works from a Hub id, and still no code is fetched."""
    shutil.rmtree(folder)
    model = load("qwen3")
    model.write(folder)
    write_tokenizer(folder / "tokenizer.json")
    config = {**model.config, "model_type": "jina_embeddings_v5", "task_names": ["retrieval"]}
    write_json(folder / "config.json", config)
    (folder / "custom_st.py").write_text("raise SystemExit('remote code ran')")
    module, adapter = "layers.1.mlp.up_proj", folder / "adapters/retrieval"
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    matrices = {"A": np.ones((4, 32), np.float32), "B": np.ones((48, 4), np.float32)}
    save_file(
        {f"base_model.model.{module}.lora_{n}.weight": m for n, m in matrices.items()},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "modeling.py").write_text("raise SystemExit('remote code ran')")
    flags = ["--model", REPO, "--adapter", "task:retrieval"]
    done = pull(tmp_path, hub, str(tmp_path / "out"), *flags, command="export")
    assert done.returncode == 0, done.stderr
    merged = load_file(tmp_path / "out/model.safetensors")[f"{module}.weight"]
    np.testing.assert_allclose(merged, model.tensors[f"{module}.weight"] + 8, atol=1e-5)
    assert ".py" not in "\n".join(hub.requests)


def test_a_hub_that_cannot_be_reached_is_a_clear_error(tmp_path: Path) -> None:
    """Nothing listens at its address."""
    done = pull(tmp_path, StandIn(url="http://127.0.0.1:9"), REPO)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert REPO in done.stderr


def test_a_file_that_is_not_what_the_hub_says_is_refused(tmp_path: Path, hub: StandIn) -> None:
    """It was changed on the way; once the way is clean it is fetched anew, not taken from the cache."""
    hub.is_meddling = True
    done = pull(tmp_path, hub, REPO)
    assert done.returncode == 1
    assert "model.safetensors has sha256" in done.stderr
    assert "Traceback" not in done.stderr
    hub.is_meddling = False
    assert pull(tmp_path, hub, REPO).returncode == 0
