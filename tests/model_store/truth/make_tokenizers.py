"""Builds tiny folders with files beside tokenizer.json, and has transformers say the ids of a few texts.

Run with a Python that has transformers (and sentencepiece for version 4), once for each major version; each fills in
the folders of its own:

    python tests/model_store/truth/make_tokenizers.py
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

EXPECTED: Final = Path(__file__).with_name("expected_tokenizers.json")
VOCABULARY_SIZE: Final = 300
TEXTS: Final = (
    "ALPHA Beta gamma",
    "café ÉTÉ alpha",
    "漢字alpha beta",
    "[SEP] alpha [unused0] beta",
    "alpha <extra>beta</s> <s> gamma <mask> [X] tail",
    "",
    " alpha  beta ",
)
WORDS: Final = ("alpha", "beta", "gamma", "cafe", "ete", "Beta", "ALPHA", "caf", "tail")
LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéÉ[]<>/0漢字"
Json = dict[str, Any]


def wordpiece(*, lowercase: bool = True, template: bool = True, added: bool = True) -> Tokenizer:
    """BERT's tokenizer over a few words and letters; `[unused0]` is in the vocabulary, but not listed as added."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "<s>", "</s>"]
    pieces = [*special, *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    if added:
        tokenizer.add_special_tokens(special[:5])
    return tokenizer


def byte_bpe(
    *, adds_space: bool = False, roberta: bool = False, sequence: bool = False
) -> Tokenizer:
    """A byte-level BPE without merges but one, with or without RoBERTa's special tokens around."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*special, *alphabet, "al", "Ġa"])}
    merges = [("a", "l"), ("Ġ", "a")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([byte_level]) if sequence else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokenizer.add_special_tokens(special[:5])
    else:
        tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def llama_bpe(
    *, bos: bool = True, metaspace: bool = False, tokens: tuple[str, ...] = ()
) -> Tokenizer:
    """A BPE with byte fallback, as a conversion of Llama's tokenizer.model gives one."""
    special = list(tokens or ("<unk>", "<s>", "</s>"))
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {
        piece: number for number, piece in enumerate([*special, *names, "▁", *"alphbetgm", "al"])
    }
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[("a", "l")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    name = "<bos>" if "<bos>" in special else "<s>"
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{name} $A",
            pair=f"{name} $A {name}:1 $B:1",
            special_tokens=[(name, special.index(name))],
        )
    tokenizer.add_special_tokens(special)
    return tokenizer


def unigram(*, normalizes: bool = False) -> Tokenizer:
    """XLM-RoBERTa's kind: Unigram behind Metaspace."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = ["▁", "▁alpha", "▁beta", "gamma", *LETTERS]
    scored = [(piece, 0.0) for piece in special] + [(p, -1.0 - 3 / len(p)) for p in pieces]
    tokenizer = Tokenizer(models.Unigram([*scored, ("<mask>", 0.0)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens([*special])
    if normalizes:
        tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


BERT: Final = {"model_type": "bert"}
LLAMA: Final = {"model_type": "llama"}
QWEN2: Final = {"model_type": "qwen2"}
NEW: Final = {"transformers_version": "5.2.0"}
GEMMA_TOKENS: Final = ("<pad>", "<eos>", "<bos>", "<unk>")
EXTRA: Final = {"content": "<extra>", "normalized": False, "special": False}


def _bert(**fields: Any) -> Json:
    return {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **fields}}


def _llama(**fields: Any) -> Json:
    return {
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": True, **fields}
    }


def _class(name: str, **fields: Any) -> Json:
    return {"tokenizer_config.json": {"tokenizer_class": name, **fields}}


# By name: the tokenizer.json, config.json's content, and the files beside them by name.
FOLDERS: Final[dict[str, tuple[Callable[[], Tokenizer], Json, Json]]] = {
    "bert lowercase asked for": (
        lambda: wordpiece(lowercase=False),
        BERT,
        _bert(do_lower_case=True),
    ),
    "bert lowercase by default": (lambda: wordpiece(lowercase=False), BERT, _bert()),
    "bert cased asked for": (wordpiece, BERT, _bert(do_lower_case=False)),
    "bert keeps accents": (wordpiece, BERT, _bert(strip_accents=False)),
    "bert cased strips accents": (wordpiece, BERT, _bert(do_lower_case=False, strip_accents=True)),
    "bert chinese kept together": (wordpiece, BERT, _bert(tokenize_chinese_chars=False)),
    "bert plain": (wordpiece, BERT, _bert(do_lower_case=True, strip_accents=None)),
    "bert class of the base": (
        lambda: wordpiece(lowercase=False),
        BERT,
        _class("PreTrainedTokenizerFast", do_lower_case=True),
    ),
    "bert without tokenizer_config": (lambda: wordpiece(lowercase=False), BERT, {}),
    "bert eos ignored": (wordpiece, BERT, _bert(add_eos_token=True, eos_token="</s>")),
    "mpnet chinese ignored": (
        wordpiece,
        {"model_type": "mpnet"},
        _class("MPNetTokenizer", tokenize_chinese_chars=False, strip_accents=None),
    ),
    "distilbert cased": (
        wordpiece,
        {"model_type": "distilbert"},
        _class("DistilBertTokenizer", do_lower_case=False),
    ),
    "bert unused as added": (
        wordpiece,
        BERT,
        _bert(added_tokens_decoder={"5": {"content": "[unused0]", "special": True}}),
    ),
    "bert new token": (
        wordpiece,
        BERT,
        _bert(added_tokens_decoder={"500": {"content": "[X]", "special": False}}),
    ),
    "bert flags changed": (
        wordpiece,
        BERT,
        _bert(added_tokens_decoder={"3": {"content": "[SEP]", "rstrip": True, "special": True}}),
    ),
    "bert specials unlisted": (lambda: wordpiece(added=False), BERT, _bert()),
    "bert additional specials": (
        wordpiece,
        BERT,
        _bert(additional_special_tokens=["[unused0]", "<extra>"]),
    ),
    "bert added_tokens.json": (
        wordpiece,
        BERT,
        {**_bert(), "added_tokens.json": {"[unused0]": 5, "[X]": 140}},
    ),
    "bert special_tokens_map": (
        wordpiece,
        BERT,
        {
            **_bert(),
            "special_tokens_map.json": {
                "bos_token": {"content": "<s>", "lstrip": True, "normalized": False},
                "additional_special_tokens": ["[unused0]"],
            },
        },
    ),
    "bert splits specials": (wordpiece, BERT, _bert(split_special_tokens=True)),
    "roberta prefix space off": (
        lambda: byte_bpe(adds_space=True, roberta=True),
        {"model_type": "roberta"},
        _class("RobertaTokenizer"),
    ),
    "roberta prefix space on": (
        lambda: byte_bpe(roberta=True),
        {"model_type": "roberta"},
        _class("RobertaTokenizer", add_prefix_space=True),
    ),
    "base prefix space off": (
        lambda: byte_bpe(adds_space=True),
        {"model_type": "modernbert"},
        _class("PreTrainedTokenizerFast"),
    ),
    "base prefix space in a sequence": (
        lambda: byte_bpe(adds_space=True, sequence=True),
        {"model_type": "modernbert"},
        _class("PreTrainedTokenizerFast", add_prefix_space=False),
    ),
    "qwen2 eos ignored": (
        lambda: byte_bpe(sequence=True),
        QWEN2,
        _class("Qwen2Tokenizer", add_eos_token=True, eos_token="<|endoftext|>"),
    ),
    "llama eos": (llama_bpe, LLAMA, _llama(add_eos_token=True)),
    "llama bos by default": (lambda: llama_bpe(bos=False), LLAMA, _llama()),
    "llama without bos": (llama_bpe, LLAMA, _llama(add_bos_token=False)),
    "llama plain": (llama_bpe, LLAMA, _llama(add_bos_token=True, add_eos_token=False)),
    "llama prefix space on": (llama_bpe, LLAMA, _llama(add_prefix_space=True)),
    "llama prefix space off": (llama_bpe, LLAMA, _llama(add_prefix_space=False)),
    "llama prefix space off, not legacy": (
        llama_bpe,
        LLAMA,
        _llama(add_prefix_space=False, legacy=False),
    ),
    "llama prefix space on, by Metaspace": (
        lambda: llama_bpe(metaspace=True),
        LLAMA,
        _llama(add_prefix_space=True, add_eos_token=True),
    ),
    "llama class of the base, eos ignored": (
        llama_bpe,
        LLAMA,
        _class("PreTrainedTokenizerFast", add_eos_token=True, eos_token="</s>"),
    ),
    "mistral without tokenizer_config": (
        lambda: llama_bpe(bos=False),
        {"model_type": "mistral"},
        {},
    ),
    "gemma bos and eos": (
        lambda: llama_bpe(tokens=GEMMA_TOKENS),
        {"model_type": "gemma3_text"},
        _class("GemmaTokenizer", add_bos_token=True, add_eos_token=True),
    ),
    "unigram added tokens": (
        unigram,
        {"model_type": "xlm-roberta"},
        _class("XLMRobertaTokenizer", added_tokens_decoder={"74": EXTRA}),
    ),
    "unigram of a BERT class": (
        lambda: unigram(normalizes=True),
        BERT,
        _bert(
            **{f"{name}_token": f"<{name}>" for name in ("unk", "pad", "mask")},
            sep_token="</s>",
            cls_token="<s>",
            do_lower_case=True,
        ),
    ),
    "unigram mask of the class": (
        unigram,
        {"model_type": "xlm-roberta"},
        _class("XLMRobertaTokenizer"),
    ),
    "version 5: eos of the file": (
        llama_bpe,
        {**LLAMA, **NEW},
        _class(
            "PreTrainedTokenizerFast",
            add_bos_token=True,
            add_eos_token=True,
            bos_token="<s>",
            eos_token="</s>",
        ),
    ),
    "version 5: llama": (llama_bpe, {**LLAMA, **NEW}, _llama(add_eos_token=True)),
    "version 5: llama without prefix space": (
        lambda: llama_bpe(metaspace=True),
        {**LLAMA, **NEW},
        _llama(add_prefix_space=False),
    ),
    "version 5: roberta prefix space off": (
        lambda: byte_bpe(adds_space=True, roberta=True),
        {"model_type": "roberta", **NEW},
        _class("RobertaTokenizer"),
    ),
    "version 5: mistral is as its file": (
        llama_bpe,
        {"model_type": "mistral", **NEW},
        _llama(add_eos_token=True),
    ),
    "version 5: unigram": (
        unigram,
        {"model_type": "xlm-roberta", **NEW},
        _class("XLMRobertaTokenizer"),
    ),
    "version 5: bert cased": (wordpiece, {**BERT, **NEW}, _bert(do_lower_case=False)),
    "version 5: bert lowercase by default": (
        lambda: wordpiece(lowercase=False),
        {**BERT, **NEW},
        _bert(),
    ),
    "version 5: bert eos ignored": (
        wordpiece,
        {**BERT, **NEW},
        _bert(add_eos_token=True, eos_token="</s>"),
    ),
    "version 5: base prefix space kept": (
        lambda: byte_bpe(adds_space=True),
        {"model_type": "modernbert", **NEW},
        _class("PreTrainedTokenizerFast"),
    ),
    "version 5: added token": (
        wordpiece,
        {**BERT, **NEW},
        _bert(added_tokens_decoder={"5": {"content": "[unused0]", "special": True}}),
    ),
}


def write_folder(folder: Path, name: str) -> Json:
    """Write a folder's tokenizer and the files beside it.

    Returns:
        Content of its config.json.
    """
    make, config, files = FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    make().save(str(folder / "tokenizer.json"))
    for file, content in {"config.json": config, **files}.items():
        (folder / file).write_text(json.dumps(content), "utf-8")
    return config


def is_new(name: str) -> bool:
    """Whether a folder says that version 5 of transformers wrote it."""
    return "transformers_version" in FOLDERS[name][1]


def main() -> None:
    """Write what this Python's transformers says of the folders of its version."""
    import transformers

    sys.path.insert(0, str(EXPECTED.parents[3]))
    from tests.model_store.truth.make_sentencepiece import sentencepiece_of

    major = int(transformers.__version__.partition(".")[0])
    expected = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.is_file() else {}
    versions = expected.setdefault("versions", {})
    versions[str(major)] = f"transformers {transformers.__version__}"
    ids = expected.setdefault("ids", {})
    for name in FOLDERS:
        if is_new(name) != (major >= 5):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), name)
            if "prefix space" in name and name.startswith("llama"):
                path = Path(folder, "tokenizer.model")
                path.write_bytes(sentencepiece_of(FOLDERS[name][0]()))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            ids[name] = [tokenizer(text)["input_ids"] for text in TEXTS]
    kept = {name: ids[name] for name in FOLDERS if name in ids}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in kept.items())
    EXPECTED.write_text(
        f'{{"versions": {json.dumps(versions)},\n"ids": {{\n{lines}\n}}}}\n', "utf-8"
    )


if __name__ == "__main__":
    main()
