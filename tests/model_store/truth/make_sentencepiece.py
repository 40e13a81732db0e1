"""tokenizer.model of a BPE with byte fallback, which transformers 4.57 converts anew for Llama's `add_prefix_space`."""

from typing import Any, Final

from tokenizers import Tokenizer

NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
BYTE: Final = 6
BPE: Final = 2


def sentencepiece_of(tokenizer: Tokenizer) -> bytes:
    """Return the SentencePiece model of a tokenizer's vocabulary; needs transformers, sentencepiece and protobuf.

    Scores fall with the ids, so that merges come in the order of the pieces.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    model: Any = import_protobuf().ModelProto()
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    kinds = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
    for name, number in pieces:
        piece = model.pieces.add()
        piece.piece, piece.score = name, float(-number)
        piece.type = kinds.get(name, BYTE if name.startswith("<0x") else NORMAL)
    trained = model.trainer_spec
    trained.model_type, trained.byte_fallback, trained.vocab_size = BPE, True, len(pieces)
    trained.unk_id, trained.bos_id, trained.eos_id, trained.pad_id = 0, 1, 2, -1
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.add_dummy_prefix = "identity", True
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    content: bytes = model.SerializeToString()
    return content
