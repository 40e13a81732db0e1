"""pplx-embed: a tangent behind the mean, and 8-bit codes of the model's own, which are not those of unit vectors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.errors import FormatError
from nestvec.model_store.folder.claims import Verdict
from nestvec.model_store.folder.gate import folder_claims
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.output_calibration import calibrate_outputs
from nestvec.model_store.package import load_package
from tokenizers import Tokenizer

from tests.export.families.harness import load, states
from tests.model_store.heads.serving import opened
from tests.model_store.heads.texts import TEXTS
from tests.model_store.test_package import options
from tests.support.tiny import write_json, write_tokenizer

CHAIN = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("", "st_quantize.FlexibleQuantizer"),
)
PUBLISHED = {
    "auto_map": {
        "AutoConfig": "configuration.PPLXQwen3Config",
        "AutoModel": "modeling.PPLXQwen3Model",
    },
    "use_bidirectional_attention": True,
}


def write_folder(folder: Path, family: str = "bidirectional_pplx_qwen3") -> None:
    """Write a tiny model as pplx-embed is published."""
    model = load(family)
    config = {**model.config, **(PUBLISHED if family != "qwen3" else {})}
    dataclasses.replace(model, config=config).write(folder)
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    modules = [{"path": path, "type": name} for path, name in CHAIN]
    write_json(folder / "modules.json", modules)


async def test_codes_are_the_models_own(tmp_path: Path) -> None:
    """Floats are the tangents of the mean; int8 is 127 times them, rounded, cut to dimensions but never scaled."""
    folder = tmp_path / "model"
    write_folder(folder)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    plain = load("bidirectional_pplx_qwen3").open(tmp_path / "plain")
    means = [states(plain, [library.encode(text).ids]).mean(axis=0) for text in TEXTS]
    expected = np.tanh(np.array(means))
    async with opened(folder) as server:

        async def vectors(**fields: object) -> list[list[float]]:
            answer = await server.post("/v1/embeddings", {"input": TEXTS, **fields})
            return [row["embedding"] for row in answer["data"]]

        raw = np.array(await vectors(normalize=False))
        unit = np.array(await vectors())
        int8 = np.array(await vectors(output_dtype="int8"))
        uint8 = np.array(await vectors(output_dtype="uint8"))
        cut = np.array(await vectors(output_dtype="int8", dimensions=8))
        model = (await server.client.get("/v1/models")).json()["data"][0]
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(int8, np.rint(raw.astype(np.float32) * 127))
    assert np.abs(int8 - 127 * expected).max() < 0.501
    np.testing.assert_array_equal(uint8, int8 + 128)
    np.testing.assert_array_equal(cut, int8[:, :8])
    assert "model" in str(model["quantization"])


def test_the_module_is_known_for_its_architecture_only(tmp_path: Path) -> None:
    """Elsewhere a class of that name may compute anything."""
    write_folder(tmp_path / "pplx")
    claims = folder_claims(tmp_path / "pplx")
    assert not {claim.verdict for claim in claims} & {Verdict.REFUSED, Verdict.UNKNOWN}
    write_folder(tmp_path / "qwen3", "qwen3")
    with pytest.raises(FormatError, match="FlexibleQuantizer"):
        read_model_folder(tmp_path / "qwen3")
    write_json(
        tmp_path / "pplx/config.json",
        {**load("bidirectional_pplx_qwen3").config, "use_bidirectional_attention": False},
    )
    with pytest.raises(FormatError, match="use_bidirectional_attention"):
        read_model_folder(tmp_path / "pplx")


def test_there_is_nothing_to_calibrate(tmp_path: Path) -> None:
    """`nestvec calibrate` says so."""
    write_folder(tmp_path / "model")
    package = load_package(str(tmp_path / "model"), options(tmp_path), OnnxBackend)
    assert package.quantizer.takes_raw
    with pytest.raises(FormatError, match="codes of its own"):
        calibrate_outputs(package, None, OnnxBackend)
