"""A model with fewer tokens gives the vectors that it gave, for texts of the tokens that it has."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import ModelFolder, read_model_folder
from nestvec.model_store.pruning.folder import (
    PrunedTokens,
    check_prunable,
    choose_tokens,
    write_pruned,
)
from nestvec.model_store.pruning.scripts import scripts_of_language
from nestvec.model_store.sources.card import read_card
from nestvec.model_store.word_tables.importing import ImportOptions, import_table
from nestvec.tools.pruning import count_corpus, use_languages
from safetensors.numpy import load_file, save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.model_store.word_tables.files import fasttext_model, vectors
from tests.model_store.word_tables.running import all_ids, ids_of, raw_vectors_of
from tests.support.tiny import write_json, write_tiny_bert

WORDS = (
    "water waters watering stone stones stony river rivers riverbed light lights lighter lightest "
    "the of and in for field fields house houses housing über straße вода река 東京 水 café 12 345 !"
)
CORPUS = ["water stone lights", "the river of light", "houses in fields , 12 ! straße 水"]


def texts(seed: int, count: int) -> list[str]:
    """Return random texts of the words and of parts of them."""
    chooser = random.Random(seed)
    words = WORDS.split()
    words += [word[: chooser.randrange(1, 6)] for word in words]
    return [" ".join(chooser.choices(words, k=chooser.randrange(1, 6))) for _ in range(count)]


def train(kind: str) -> Tokenizer:
    """Train a small tokenizer of a kind, with special tokens in front and behind the vocabulary."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    if kind in ("bpe", "byte-level bpe"):
        library = Tokenizer(models.BPE(unk_token=None if "byte" in kind else "<unk>"))
        options: dict[str, Any] = {}
        if kind == "byte-level bpe":
            library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            library.decoder = decoders.ByteLevel()
            options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
        else:
            library.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: trainers.Trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, show_progress=False, **options
        )
    elif kind == "unigram":
        library = Tokenizer(models.Unigram())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        library = Tokenizer(models.WordPiece(unk_token="<unk>"))
        library.normalizer = normalizers.Lowercase()
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=special, show_progress=False
        )
    library.train_from_iterator(texts(1, 400), trainer)
    library.add_tokens(["newest"])
    first, last = library.token_to_id("<s>"), library.token_to_id("</s>")
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    return library


def write_static(folder: Path, library: Tokenizer) -> Path:
    """Write a static model of a tokenizer."""
    rows = library.get_vocab_size(with_added_tokens=True)
    table = np.random.default_rng(2).standard_normal((rows, 8)).astype(np.float32)
    write_json(folder / "config.json", {"model_type": "model2vec"})
    library.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder


def prune(root: Path, out: Path, corpus: list[str]) -> tuple[ModelFolder, PrunedTokens]:
    """Prune a folder to a corpus; returns what the folder said, and what is kept."""
    folder = read_model_folder(root)
    found = count_corpus(folder, corpus, held_out=0)
    tokens = choose_tokens(folder, found.used, frozenset(found.scripts))
    write_pruned(root, folder, tokens, out, {"made_by": "test"})
    return folder, tokens


def compare(root: Path, out: Path, tokens: PrunedTokens) -> int:
    """Compare ids and vectors of random texts all of whose tokens are kept; return how many there were."""
    old, new = read_model_folder(root), read_model_folder(out)
    new_ids = tokens.new_ids
    kept = []
    some = texts(3, 300)
    pairs = zip(all_ids(old, some), all_ids(new, some), strict=True)
    for text, (ids, of_new) in zip(some, pairs, strict=True):
        if all(number in new_ids for number in ids):
            assert of_new == [new_ids[number] for number in ids], text
            kept.append(text)
    np.testing.assert_allclose(
        raw_vectors_of(out, kept), raw_vectors_of(root, kept), rtol=0, atol=1e-6
    )
    return len(kept)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe", "byte-level bpe"])
def test_texts_of_kept_tokens_are_tokenized_as_before(tmp_path: Path, kind: str) -> None:
    """Whatever the tokenizer; and other texts are tokenized too."""
    (tmp_path / "model").mkdir()
    root = write_static(tmp_path / "model", train(kind))
    _, tokens = prune(root, tmp_path / "out", CORPUS)
    assert len(tokens.old_ids) < 0.9 * tokens.rows
    assert compare(root, tmp_path / "out", tokens) > 30
    folder = read_model_folder(tmp_path / "out")
    if kind == "byte-level bpe":  # any text has tokens: bytes
        assert (
            folder.open_tokenizer().decode(ids_of(folder, "rivers 東京 newest"))
            == "rivers 東京 newest"
        )
    library = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert library.encode("water").tokens[0] == "<s>"
    assert library.token_to_id("newest") == len(tokens.old_ids) - 1


def test_unknown_characters_keep_their_score(tmp_path: Path) -> None:
    """Unigram scores them by the least score of all pieces: without that piece this text would be cut otherwise."""
    pieces = [("<unk>", 0.0), ("a", -9.0), ("b", -9.0), ("cx", -9.0), ("abc", -1.0), ("zz", -30.0)]
    (tmp_path / "model").mkdir()
    root = write_static(tmp_path / "model", Tokenizer(models.Unigram(pieces, unk_id=0)))
    _, tokens = prune(root, tmp_path / "out", ["abc", "abcx"])
    old, new = read_model_folder(root), read_model_folder(tmp_path / "out")
    assert ids_of(old, "abcx") == [1, 2, 3]
    assert [tokens.old_ids[number] for number in ids_of(new, "abcx")] == [1, 2, 3]


def test_a_transformer_keeps_its_vectors_and_its_files(tmp_path: Path) -> None:
    """Ids stand in config.json, tokenizer_config.json and the template; heads of a language model are cut too."""
    root = write_tiny_bert(tmp_path / "model")
    config = json.loads((root / "config.json").read_text())
    write_json(root / "config.json", {**config, "pad_token_id": 0, "sep_token_id": 3})
    tensors = load_file(root / "model.safetensors")
    rows = config["vocab_size"]
    tensors |= {
        "cls.predictions.bias": np.arange(rows, dtype=np.float32),
        "cls.predictions.decoder.weight": tensors["embeddings.word_embeddings.weight"].copy(),
    }
    save_file(tensors, root / "model.safetensors")
    write_json(
        root / "tokenizer_config.json",
        {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}}},
    )
    for name in ("vocab.txt", "model.onnx", "pytorch_model.bin", "LICENSE"):
        (root / name).write_text("x")
    (root / "model.onnx").unlink()
    _, tokens = prune(root, tmp_path / "out", ["alpha beta gamma", "the red one : query"])
    out = tmp_path / "out"
    old, new = read_model_folder(root), read_model_folder(out)
    kept = ["the alpha", "red gamma zxa", "query: one beta"]
    assert [ids_of(new, text) for text in kept] == [
        [tokens.new_ids[number] for number in ids_of(old, text)] for text in kept
    ]
    np.testing.assert_allclose(
        raw_vectors_of(out, kept), raw_vectors_of(root, kept), rtol=0, atol=1e-6
    )
    said = json.loads((out / "config.json").read_text())
    assert said["vocab_size"] == len(tokens.old_ids) < rows
    assert (said["pad_token_id"], said["sep_token_id"]) == (0, tokens.new_ids[3])
    beside = json.loads((out / "tokenizer_config.json").read_text())
    assert list(beside["added_tokens_decoder"]) == [str(tokens.new_ids[4])]
    assert not (out / "vocab.txt").exists()
    assert not (out / "pytorch_model.bin").exists()
    assert (out / "LICENSE").exists()
    smaller = load_file(out / "model.safetensors")
    np.testing.assert_array_equal(smaller["cls.predictions.bias"], tokens.old_ids)


def test_padding_keeps_its_id_where_positions_are_numbered_from_it(tmp_path: Path) -> None:
    """RoBERTa's positions begin behind the padding token's id."""
    root = write_tiny_bert(tmp_path / "model")
    config = json.loads((root / "config.json").read_text())
    write_json(root / "config.json", {**config, "pad_token_id": 60})
    prune(root, tmp_path / "out", ["alpha"])
    assert json.loads((tmp_path / "out/config.json").read_text())["pad_token_id"] == 60


def test_word_tables_keep_their_ngrams_and_weights(tmp_path: Path) -> None:
    """Words of the corpus keep their vectors, and unseen words those of their n-grams."""
    buckets = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    (tmp_path / "f.bin").write_bytes(fasttext_model(vectors(3), buckets))
    weights = tmp_path / "w.txt"
    weights.write_text("cat 3\nsat 2\n")
    import_table(tmp_path / "f.bin", tmp_path / "model", ImportOptions(weights_file=weights))
    _, tokens = prune(tmp_path / "model", tmp_path / "out", ["the cat"])
    assert len(tokens.old_ids) == 3 + 7
    kept = ["the cat", "cat unseen words", "never"]
    np.testing.assert_allclose(
        raw_vectors_of(tmp_path / "out", kept),
        raw_vectors_of(tmp_path / "model", kept),
        rtol=0,
        atol=1e-6,
    )


def test_a_quantised_vocabulary_keeps_its_rows(tmp_path: Path) -> None:
    """Of model2vec's folders with a mapping the mapping is cut, and the weights."""
    library = train("wordpiece")
    write_static(tmp_path, library)
    size = library.get_vocab_size(with_added_tokens=True)
    chooser = np.random.default_rng(5)
    tensors = {
        "embeddings": chooser.standard_normal((9, 8)).astype(np.float32),
        "mapping": chooser.integers(0, 9, size),
        "weights": chooser.random(size).astype(np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    out = tmp_path.parent / "pruned"
    _, tokens = prune(tmp_path, out, CORPUS)
    assert load_file(out / "model.safetensors")["mapping"].shape == tokens.old_ids.shape
    assert compare(tmp_path, out, tokens) > 30


def test_a_language_keeps_the_tokens_of_its_letters(tmp_path: Path) -> None:
    """Tokens without letters stay; single letters of other scripts go."""
    (tmp_path / "model").mkdir()
    library = train("byte-level bpe")
    folder = read_model_folder(write_static(tmp_path / "model", library))
    found = count_corpus(folder, (), held_out=0)
    use_languages(folder, found, ["ru"])
    spelled = {library.decode([number]) for number in np.flatnonzero(found.used).tolist()}
    assert {" вода", "12"} <= spelled
    assert not {" water", "stone"} & spelled
    assert scripts_of_language("zh-Hant") == {"cjk", "ideographic", "bopomofo"}
    with pytest.raises(FormatError, match="'xx' is not known"):
        use_languages(folder, found, ["xx"])


def spoil_tensor(root: Path) -> None:
    """Add a tensor with a value for each token."""
    tensors = load_file(root / "model.safetensors")
    save_file({**tensors, "odd.table": np.ones((127, 2), np.float32)}, root / "model.safetensors")


def shorten(root: Path) -> None:
    """Take a row away, so that no other size is that of the vocabulary."""
    tensors = load_file(root / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    tensors[name] = tensors[name][:127].copy()
    save_file(tensors, root / "model.safetensors")
    config = json.loads((root / "config.json").read_text())
    write_json(root / "config.json", {**config, "vocab_size": 127})
    tokenizer = json.loads((root / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {t: n for t, n in tokenizer["model"]["vocab"].items() if n < 127}
    write_json(root / "tokenizer.json", tokenizer)


def rename_table(root: Path) -> None:
    """Call the table of tokens otherwise."""
    tensors = load_file(root / "model.safetensors")
    table = tensors.pop("embeddings.word_embeddings.weight")
    save_file({**tensors, "embeddings.other": table}, root / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_tensor, r"'odd\.table'.*not known"), (rename_table, "not known|no table")],
)
def test_an_unknown_table_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """By its name; nothing is left on the disk."""
    root = write_tiny_bert(tmp_path / "model")
    shorten(root)
    spoil(root)
    with pytest.raises(FormatError, match=words):
        prune(root, tmp_path / "out", ["alpha"])
    assert not (tmp_path / "out").exists()


def test_weights_of_terms_are_refused(tmp_path: Path) -> None:
    """They are known by the ids that pruning changes."""
    root = write_tiny_bert(tmp_path / "model")
    (root / "modules.json").unlink()
    tensors = load_file(root / "model.safetensors")
    size = json.loads((root / "config.json").read_text())["hidden_size"]
    tensors |= {
        "cls.predictions.transform.dense.weight": np.eye(size, dtype=np.float32),
        "cls.predictions.transform.dense.bias": np.zeros(size, np.float32),
        "cls.predictions.transform.LayerNorm.weight": np.ones(size, np.float32),
        "cls.predictions.transform.LayerNorm.bias": np.zeros(size, np.float32),
        "cls.predictions.bias": np.zeros(128, np.float32),
    }
    save_file(tensors, root / "model.safetensors")
    with pytest.raises(FormatError, match="weights of terms"):
        check_prunable(read_model_folder(root, {"pooling": "splade"}))


def test_the_verb_writes_a_card_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures on the texts held out, exactness on the others; the model is then known by its name."""
    write_tiny_bert(tmp_path / "model")
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "tiny.toml").write_text(
        f'name = "tiny"\nlicense = "MIT"\n[source]\nkind = "folder"\nname = "{tmp_path / "model"}"\n'
        '[overrides]\nprompts = { query = "delta: " }\n[facts]\nparameters = 100000\n'
    )
    monkeypatch.setenv("NESTVEC_MODELS_DIR", str(cards))
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    corpus = tmp_path / "texts.txt"
    corpus.write_text("".join(f"{word} beta\n" for word in ("alpha", "gamma", "one", "blue")))
    flags = ("--corpus", str(corpus), "--held-out", "0.25", "--out", str(tmp_path / "small"))
    done = CliRunner().invoke(group, ["model", "prune", "tiny", *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "on 1 texts held out: 50.00% of their tokens are others now" in done.output
    assert "of 3 texts of kept tokens 3 are tokenized as before" in done.output
    card = read_card(cards / "small.toml")
    tokens = json.loads((tmp_path / "small/config.json").read_text())["vocab_size"]
    assert (card.name, card.license) == ("small", "MIT")
    assert card.parameters == 100000 - (128 - tokens) * 32
    assert card.overrides == {"prompts": {"query": "delta: "}}
    vocabulary = Tokenizer.from_file(str(tmp_path / "small/tokenizer.json")).get_vocab()
    assert {"delta", "alpha"} <= set(vocabulary)
    assert "blue" not in vocabulary
