"""LoRA adapters merged at export: the same vectors as a model that runs the adapter beside its layers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from nestvec.cli.model.merge import export
from nestvec.errors import ArtefactError, FormatError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.sources.adapters import merge_adapter, merged_folder
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.export.families.harness import load
from tests.model_store.heads.serving import opened
from tests.support.tiny import CONFIG as SIZES
from tests.support.tiny import bert_weights, write_json, write_tiny_bert, write_tokenizer

MODULES = ("encoder.layer.0.attention.self.query", "encoder.layer.1.intermediate.dense")
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "target_modules": ["x"]}


def write_adapter(folder: Path, scale: float = 1.0, **settings: Any) -> dict[str, NDArray[Any]]:
    """Write a random adapter of rank 4; return what it adds to each module."""
    random = np.random.default_rng(9)
    write_json(folder / "adapter_config.json", {**CONFIG, **settings})
    tensors, added = {}, {}
    for module in MODULES:
        out = 64 if module.endswith("intermediate.dense") else 32
        down = random.standard_normal((4, 32)).astype(np.float32)
        up = scale * random.standard_normal((out, 4)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_A.weight"] = down
        tensors[f"base_model.model.{module}.lora_B.weight"] = up
        added[module] = up @ down
    save_file(tensors, folder / "adapter_model.safetensors")
    return added


@pytest.mark.parametrize(("settings", "scaling"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_weights_are_the_sum(tmp_path: Path, settings: dict[str, bool], scaling: float) -> None:
    """Named modules become W + s B A, all else stays; files beside the weights are copied."""
    base = write_tiny_bert(tmp_path / "base")
    added = write_adapter(tmp_path / "adapter", **settings)
    assert merge_adapter(base, tmp_path / "adapter", tmp_path / "out") == len(MODULES)
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        change = scaling * added.get(name.removesuffix(".weight"), np.zeros(1))
        np.testing.assert_allclose(after[name], tensor + change, atol=1e-5)
    assert (tmp_path / "out/1_Pooling/config.json").is_file()
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    hashes = HashCache(tmp_path / "hashes.json")
    spaces = {space_fingerprint(read_model_folder(f), hashes) for f in (base, tmp_path / "out")}
    assert len(spaces) == 2


def unmerged(text_ids: list[int], added: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Compute the states of a BERT that runs the adapter beside its layers, in numpy, [n, H]."""
    weights = {n: t.astype(np.float64) for n, t in bert_weights(SIZES).items()}

    def linear(value: Any, name: str) -> Any:
        output = value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return (
            output + 2.0 * (value @ added[name].T.astype(np.float64)) if name in added else output
        )

    def norm(value: Any, name: str) -> Any:
        centred = value - value.mean(-1, keepdims=True)
        root = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return centred / root * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    places = weights["embeddings.position_embeddings.weight"][: len(text_ids)]
    kinds = weights["embeddings.token_type_embeddings.weight"][0]
    words = weights["embeddings.word_embeddings.weight"][text_ids]
    state = norm(words + places + kinds, "embeddings.LayerNorm")
    for number in range(2):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            linear(state, f"{layer}.attention.self.{part}").reshape(-1, 4, 8).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(8)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(-1, 32)
        state = norm(
            linear(mixed, f"{layer}.attention.output.dense") + state,
            f"{layer}.attention.output.LayerNorm",
        )
        wide = linear(state, f"{layer}.intermediate.dense")
        active = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        state = norm(linear(active, f"{layer}.output.dense") + state, f"{layer}.output.LayerNorm")
    output: NDArray[np.float64] = state
    return output


async def test_merged_is_unmerged_over_http(tmp_path: Path) -> None:
    """A model merged by the command gives the same states to 1e-5."""
    base = write_tiny_bert(tmp_path / "base")
    added = write_adapter(tmp_path / "adapter", 0.1)
    out = tmp_path / "out"
    arguments = [str(out), "--adapter", str(tmp_path / "adapter"), "--model", str(base)]
    done = CliRunner().invoke(export, arguments)
    assert done.exit_code == 0, done.output
    async with opened(out) as server:
        ids = [token["id"] for token in (await server.post("/tokenize", {"inputs": "the red"}))[0]]
        tokens = await server.post("/embed_all", {"inputs": "the red"})
    np.testing.assert_allclose(tokens[0], unmerged(ids, added), atol=1e-5)


async def test_a_zero_adapter_changes_nothing(tmp_path: Path) -> None:
    """Every adapter begins its training as zero."""
    base = write_tiny_bert(tmp_path / "base")
    write_adapter(tmp_path / "adapter", 0.0)
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_adapter_of_a_model_with_another_prefix(tmp_path: Path) -> None:
    """The adapter's base was loaded without the head that the checkpoint has."""
    family = load("bert")
    family.write(tmp_path / "base", prefix="bert.")
    write_adapter(tmp_path / "adapter")
    assert merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "out") == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save"),
        ({"rank_pattern": {"x": 2}}, "rank_pattern"),
        ({"r": 0}, "'r'"),
        ({"r": 3}, "not of rank 3"),
        ({"lora_alpha": "8"}, "lora_alpha"),
    ],
)
def test_what_merging_would_lose_is_refused(tmp_path: Path, settings: Any, named: str) -> None:
    """The error names the field."""
    base = write_tiny_bert(tmp_path / "base")
    write_adapter(tmp_path / "adapter", **settings)
    with pytest.raises(FormatError, match=named):
        merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """An unknown layer, a foreign tensor, a pickle and an existing folder are refused."""
    base = write_tiny_bert(tmp_path / "base")
    adapter = tmp_path / "adapter"
    write_adapter(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    elsewhere = {name.replace("layer.0", "layer.7"): tensor for name, tensor in tensors.items()}
    save_file(elsewhere, adapter / "adapter_model.safetensors")
    with pytest.raises(FormatError, match=r"layer\.7"):
        merge_adapter(base, adapter, tmp_path / "out")
    save_file({**tensors, "other": np.ones(3)}, adapter / "adapter_model.safetensors")
    with pytest.raises(FormatError, match="'other' is no LoRA's"):
        merge_adapter(base, adapter, tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(FormatError, match="pickled"):
        merge_adapter(base, adapter, tmp_path / "out")
    write_adapter(adapter)
    with pytest.raises(ArtefactError, match="exists"):
        merge_adapter(base, adapter, tmp_path)


def write_with_tasks(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a model with adapters beside its weights, as Jina's third; return its tensors and what each task adds."""
    write_tiny_bert(folder)
    config = {**SIZES, "lora_adaptations": ["query", "passage"], "lora_rank": 4, "lora_alpha": 2}
    write_json(folder / "config.json", config)
    random = np.random.default_rng(4)
    tensors = bert_weights(SIZES)
    stored: dict[str, Any] = {}
    added: dict[str, Any] = {}
    table = "embeddings.word_embeddings"
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        if stem not in (*MODULES, table):
            stored[name] = tensor
            continue
        rows, columns = tensor.shape
        shapes = ((rows, 4), (4, columns)) if stem == table else ((4, columns), (rows, 4))
        a, b = (random.standard_normal((2, *shape)).astype(np.float32) for shape in shapes)
        prefix = f"{stem}.parametrizations.weight."
        stored |= {f"{prefix}original": tensor, f"{prefix}0.lora_A": a, f"{prefix}0.lora_B": b}
        added[name] = 0.5 * (a @ b if stem == table else b @ a)
    save_file(stored, folder / "model.safetensors")
    return tensors, added


@pytest.mark.parametrize("index", [0, 1])
def test_a_models_own_adapters(tmp_path: Path, index: int) -> None:
    """An adapter is merged by the name of its task, into plain layers and word embeddings alike."""
    tensors, added = write_with_tasks(tmp_path / "model")
    task = ("query", "passage")[index]
    out = merged_folder(tmp_path / "model", Path(f"task:{task}"), tmp_path / "cache")
    merged = load_file(out / "model.safetensors")
    assert merged.keys() == tensors.keys()
    for name, tensor in tensors.items():
        change = added[name][index] if name in added else np.zeros(1, np.float32)
        np.testing.assert_allclose(merged[name], tensor + change, atol=1e-5)
    assert merged_folder(tmp_path / "model", Path(f"task:{task}"), tmp_path / "cache") == out
    with pytest.raises(FormatError, match="no adapter 'clustering'"):
        merged_folder(tmp_path / "model", Path("task:clustering"), tmp_path / "cache")


async def test_without_a_task_the_plain_weights_are_served(tmp_path: Path) -> None:
    """The vectors are those of a checkpoint without adapters."""
    write_with_tasks(tmp_path / "model")
    plain = write_tiny_bert(tmp_path / "plain")
    vectors = []
    for folder in (tmp_path / "model", plain):
        async with opened(folder) as server:
            vectors.append(await server.post("/embed", {"inputs": "the red one"}))
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.parametrize("family", ["qwen3", "eurobert"])
def test_adapters_in_folders_of_their_own(tmp_path: Path, family: str) -> None:
    """Jina's fifth model with an adapter is a plain decoder that pools the last token; without one it is refused."""
    base = tmp_path / "base"
    model = load(family)
    model.write(base)
    write_tokenizer(base / "tokenizer.json")
    config = {
        **model.config,
        "model_type": "jina_embeddings_v5",
        "task_names": ["retrieval", "clustering"],
        "auto_map": {"AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model"},
    }
    write_json(base / "config.json", config)
    write_json(base / "modules.json", [{"path": "", "type": "custom_st.Transformer"}])
    prompts = {"prompts": {"query": "Query: "}, "default_prompt_name": "query"}
    write_json(base / "config_sentence_transformers.json", prompts)
    module = "layers.1.mlp.up_proj"
    for task, scale in (("retrieval", 1.0), ("clustering", 3.0)):
        down, up = np.ones((4, 32), np.float32), scale * np.ones((48, 4), np.float32)
        name = f"base_model.model.{module}.lora_"
        write_json(base / "adapters" / task / "adapter_config.json", CONFIG)
        save_file(
            {f"{name}A.weight": down, f"{name}B.weight": up},
            base / "adapters" / task / "adapter_model.safetensors",
        )
    with pytest.raises(FormatError):
        read_model_folder(base)
    for task, change in (("retrieval", 8.0), ("clustering", 24.0)):
        out = merged_folder(base, Path(f"task:{task}"), tmp_path / "cache")
        merged = load_file(out / "model.safetensors")
        changed = {n for n in merged if not np.array_equal(merged[n], model.tensors[n])}
        assert changed == {f"{module}.weight"}
        np.testing.assert_allclose(
            merged[f"{module}.weight"], model.tensors[f"{module}.weight"] + change, atol=1e-5
        )
        folder = read_model_folder(out)
        assert (folder.architecture, folder.head.pooling) == (family, "last_token")
        assert folder.default_prompt == "query"
        assert not (out / "adapters").exists()
    with pytest.raises(FormatError, match="no adapter 'passage' in task_names"):
        merged_folder(base, Path("task:passage"), tmp_path / "cache")
    write_json(base / "config.json", {**config, "task_names": ["../adapters/retrieval"]})
    with pytest.raises(FormatError, match="no adapter"):
        merged_folder(base, Path("task:../adapters/retrieval"), tmp_path / "cache")


def test_a_models_own_adapter_is_exported_by_its_name(tmp_path: Path) -> None:
    """What is neither a folder nor a task of the model is an error."""
    write_with_tasks(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--cache-dir", str(tmp_path / "cache")]
    out = tmp_path / "out"
    done = CliRunner().invoke(export, [str(out), "--adapter", "task:query", *flags])
    assert done.exit_code == 0, done.output
    again = merged_folder(tmp_path / "model", Path("task:query"), tmp_path / "cache")
    files = [folder / "model.safetensors" for folder in (out, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    missing = CliRunner().invoke(export, [str(tmp_path / "b"), "--adapter", "nowhere", *flags])
    assert missing.exit_code != 0
    assert "no folder" in missing.output
