"""Writes a GGUF file of a Qwen3 model for llama.cpp's server. Arguments: folder of the model, file, f32 or q8_0.

Matrices are quantized by the gguf package, as llama.cpp's own converter does it; norms stay float32. The vocabulary is
the folder's WordPiece, though the benchmark sends token ids.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType, TokenType
from gguf.quants import quantize
from gguf.tensor_mapping import get_tensor_name_map
from safetensors import safe_open

KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}


def add_sizes(writer: GGUFWriter, config: dict) -> None:
    """Add the fields that the graph depends on."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_pooling_type(PoolingType.LAST)


def add_vocabulary(writer: GGUFWriter, folder: Path) -> None:
    """Add the WordPiece vocabulary; llama.cpp marks the beginnings of words instead of their continuations."""
    ids = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    tokens, kinds = [], []
    for token in sorted(ids, key=ids.__getitem__):
        if token.startswith("[") and token.endswith("]"):
            kinds.append(TokenType.CONTROL)
            tokens.append(token)
        else:
            kinds.append(TokenType.NORMAL)
            tokens.append(token[2:] if token.startswith("##") else "\u2581" + token)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(1)
    for name in ("unk", "pad", "sep", "mask"):
        getattr(writer, f"add_{name}_token_id")(ids[f"[{name.upper()}]"])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_eos_token_id(ids["[SEP]"])


def main() -> None:
    """Write the file; it appears whole or not at all."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    kind, file_type = KINDS[sys.argv[3]]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    unfinished = out.with_name(f"{out.name}.{os.getpid()}")
    writer = GGUFWriter(unfinished, "qwen3")
    writer.add_name(folder.name)
    writer.add_file_type(file_type)
    add_sizes(writer, config)
    add_vocabulary(writer, folder)
    names = get_tensor_name_map(MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            values = file.get_tensor(name)
            ours = names.get_name(f"model.{name}", try_suffixes=(".weight",))
            if values.ndim > 1 and kind != GGMLQuantizationType.F32:
                writer.add_tensor(ours, quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(ours, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(out)


main()
