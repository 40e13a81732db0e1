"""Imported word tables give the vectors of the libraries whose files they were."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.errors import ArtefactError, FormatError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.word_tables.importing import ImportOptions, import_table
from nestvec.model_store.word_tables.weighting import Weighting
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.model_store.heads.serving import opened
from tests.model_store.word_tables.files import (
    binary_table,
    fasttext_model,
    text_table,
    vectors,
    write_magnitude,
)
from tests.model_store.word_tables.running import ids_of, raw_vectors_of, vectors_of_ids

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected_fasttext.json").read_text("utf-8"))
BY_BLANKS = ImportOptions(splits_words=False)


@pytest.fixture(scope="module")
def fasttext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of gensim's fastText model, whose texts are split at blanks."""
    out = tmp_path_factory.mktemp("fasttext") / "model"
    import_table(HERE / "fasttext.bin", out, BY_BLANKS)
    return out


def mean_of(words: list[str]) -> NDArray[np.float64]:
    """Return the mean of gensim's vectors of words."""
    mean: NDArray[np.float64] = np.mean([EXPECTED["vectors"][word] for word in words], axis=0)
    return mean


def test_fasttext_gives_gensims_vectors_of_words_seen_and_unseen(fasttext: Path) -> None:
    """100 words, of which 20 are in no vocabulary: to 1e-6."""
    words = list(EXPECTED["vectors"])
    assert (len(words), len(EXPECTED["unseen"])) == (100, 20)
    expected = np.array(list(EXPECTED["vectors"].values()))
    np.testing.assert_allclose(raw_vectors_of(fasttext, words), expected, rtol=0, atol=1e-6)


def test_a_text_is_the_mean_of_its_words_however_many_parts_each_has(fasttext: Path) -> None:
    """Unseen words count as one word each, beside one another, first and last; marks of Unicode too."""
    seen, unseen = list(EXPECTED["vectors"])[:3], EXPECTED["unseen"]
    texts = [
        [*seen, *unseen[:2]],
        [*unseen[-3:], seen[0]],
        [unseen[9], unseen[9], seen[1], unseen[11]],
    ]
    given = raw_vectors_of(fasttext, [" ".join(words) for words in texts])
    expected = np.array([mean_of(words) for words in texts])
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6)


def test_a_text_cut_within_a_word_keeps_the_parts_that_fit(fasttext: Path) -> None:
    """From either end; what is left of a word is a word."""
    folder = read_model_folder(fasttext)
    first, second = EXPECTED["unseen"][:2]
    whole = ids_of(folder, f"{first} {second}")
    tokenizer = folder.open_tokenizer(max_tokens=len(whole) - 2)
    rows = load_file(fasttext / "model.safetensors")["embeddings"]
    for truncate, kept in ((Truncation.END, whole[:-2]), (Truncation.START, whole[2:])):
        (encoded,) = tokenizer.encode_texts([f"{first} {second}"], TokenizeOptions(truncate))
        assert encoded.ids.tolist() == kept
        words: list[list[int]] = []
        for number in kept:
            if number < len(rows) or not words:
                words.append([])
            words[-1].append(number % len(rows))
        expected = np.mean([rows[word].mean(axis=0) for word in words], axis=0)
        (given,) = vectors_of_ids(folder, fasttext, [kept])
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6)


def test_a_word_too_long_to_be_one_is_unknown(fasttext: Path) -> None:
    """Its n-grams would be several times its characters."""
    folder = read_model_folder(fasttext)
    assert ids_of(folder, "alpha " + "x" * 501) == ids_of(folder, "alpha")
    assert len(ids_of(folder, "x" * 500)) > 1000


async def test_an_imported_table_is_served_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verb writes folder and card; a chunk, a prompt and the tokens of words count as everywhere."""
    monkeypatch.setenv("NESTVEC_MODELS_DIR", str(tmp_path))
    file = str(HERE / "fasttext.bin")
    flags = ("--name", "ft", "--alias", "org/ft", "--split", "blanks")
    done = CliRunner().invoke(group, ["model", "import", file, *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "90 words of 8 dimensions and 400 rows of n-grams" in done.output
    shown = CliRunner().invoke(group, ["model", "show", "org/ft"], catch_exceptions=False)
    assert "imported from fasttext.bin" in shown.output
    seen, unseen = next(iter(EXPECTED["vectors"])), EXPECTED["unseen"][0]
    async with opened(tmp_path / "ft") as server:
        body = {"input": [f"{seen} {unseen}"], "model": "ft", "normalize": False}
        answer = await server.post("/v1/embeddings", body)
        prompted = await server.post("/v1/embeddings", {**body, "prompt": f"{unseen} "})
        explained = {"model": "ft", "pairs": [[seen, unseen]], "explain": True}
        refused = await server.client.post("/v1/similarity", json=explained)
    assert "'explain' needs a model" in refused.json()["error"]["message"]
    given = np.array([answer["data"][0]["embedding"], prompted["data"][0]["embedding"]])
    expected = [mean_of([seen, unseen]), mean_of([unseen, seen, unseen])]
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6)
    again = CliRunner().invoke(group, ["model", "import", file, *flags])
    assert again.exit_code != 0


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", ["word2vec text", "word2vec binary", "glove", "magnitude"])
def test_each_format_gives_the_vectors_that_were_written(
    tmp_path: Path, kind: str, *, is_packed: bool
) -> None:
    """Packed by gzip or not; words, marks and other scripts."""
    table = vectors()
    path = tmp_path / "table"
    if kind == "magnitude":
        write_magnitude(path, table)
    else:
        writers = {
            "word2vec text": text_table(table, has_header=True),
            "glove": text_table(table, has_header=False),
            "word2vec binary": binary_table(table),
        }
        path.write_bytes(writers[kind])
    if is_packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    report = import_table(path, tmp_path / "model")
    assert (report.words, report.dimensions, report.lowercases) == (len(table), 6, True)
    texts = {
        "The cat sat.": ["the", "cat", "sat", "."],
        "in ZÜRICH": ["zürich"],
        "zu\u0308rich": ["zürich"],
    }
    expected = [np.mean([table[word] for word in words], axis=0) for words in texts.values()]
    given = raw_vectors_of(tmp_path / "model", list(texts))
    np.testing.assert_allclose(given, expected, rtol=0, atol=2e-6)
    (unknown,) = raw_vectors_of(tmp_path / "model", ["nobody knows"])
    assert not unknown.any()


def test_any_tokenizers_library_reads_the_tokenizer(fasttext: Path) -> None:
    """Words have the ids of their rows; others are the unknown token there."""
    library = Tokenizer.from_file(str(fasttext / "tokenizer.json"))
    rows = load_file(fasttext / "model.safetensors")["embeddings"]
    words = [word for word in EXPECTED["vectors"] if word not in EXPECTED["unseen"]]
    encoding = library.encode(" ".join([*words, "neverseen"]))
    assert encoding.tokens == [*words, "[UNK]"]
    expected = np.array([EXPECTED["vectors"][word] for word in words])
    np.testing.assert_allclose(rows[encoding.ids[:-1]], expected, rtol=0, atol=1e-6)


def test_words_that_come_again_or_that_no_text_meets_are_left_out(tmp_path: Path) -> None:
    """The first of several is kept, as in gensim; the others are counted, and capitals stay where words have some."""
    table = text_table(vectors(2, ("The", "cat")), has_header=False)
    table += b"cat 9 9\n. . . 1 2\n\xff\xfe 3 4\n 5 6\n"
    (tmp_path / "t.txt").write_bytes(table)
    report = import_table(tmp_path / "t.txt", tmp_path / "model")
    assert (report.words, report.duplicates, report.unreadable) == (2, 1, 3)
    assert not report.lowercases
    expected = vectors(2, ("The", "cat"))
    given = raw_vectors_of(tmp_path / "model", ["the cat", "The"])
    np.testing.assert_allclose(given, [expected["cat"], expected["The"]], atol=1e-6)


def test_the_first_words_are_taken_where_fewer_are_asked_for(tmp_path: Path) -> None:
    """N-grams stay, and an omitted word is then made of them alone."""
    table = vectors(3)
    buckets = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    (tmp_path / "f.bin").write_bytes(fasttext_model(table, buckets))
    report = import_table(tmp_path / "f.bin", tmp_path / "model", ImportOptions(max_words=2))
    assert (report.words, report.buckets) == (2, 7)
    tensors = load_file(tmp_path / "model/model.safetensors")
    np.testing.assert_array_equal(tensors["embeddings"][3:], buckets)
    folder = read_model_folder(tmp_path / "model")
    assert min(ids_of(folder, "sat")) >= 3
    assert ids_of(folder, "cat") == [2]


def test_unknown_words_may_be_made_of_characters(tmp_path: Path) -> None:
    """A word of known characters is their mean and counts once; one without any is left out."""
    table = vectors()
    (tmp_path / "t.vec").write_bytes(text_table(table, has_header=True))
    import_table(tmp_path / "t.vec", tmp_path / "model", ImportOptions(backs_off=True))
    given = raw_vectors_of(tmp_path / "model", ["cat 東京 xyz", "京東京"])
    tokyo = (table["東"] + table["京"]) / 2
    expected = [(table["cat"] + tokyo) / 2, (table["東"] + 2 * table["京"]) / 3]
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_words_weigh_as_a_corpus_or_a_file_says(tmp_path: Path) -> None:
    """IDF and SIF by their formulas; an unseen word weighs as one that the corpus lacks."""
    table = vectors(3)
    buckets = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    path = tmp_path / "f.bin"
    path.write_bytes(fasttext_model(table, buckets))
    corpus = ["the cat", "the the sat", "nobody"]
    plain = tmp_path / "plain"
    import_table(path, plain)
    single = dict(
        zip(("the", "cat", "new"), raw_vectors_of(plain, ["the", "cat", "new"]), strict=True)
    )

    def check(name: str, options: ImportOptions, weights: dict[str, float]) -> None:
        import_table(path, tmp_path / name, options)
        (given,) = raw_vectors_of(tmp_path / name, ["the cat new"])
        expected = np.mean([single[word] * weight for word, weight in weights.items()], axis=0)
        np.testing.assert_allclose(given, expected, atol=1e-5, err_msg=name)

    idf = {"the": np.log(4 / 3) + 1, "cat": np.log(4 / 2) + 1, "new": np.log(4) + 1}
    check("idf", ImportOptions(weighting=Weighting.IDF, corpus=corpus), idf)
    sif = {"the": 1e-3 / (1e-3 + 3 / 6), "cat": 1e-3 / (1e-3 + 1 / 6), "new": 1.0}
    check("sif", ImportOptions(weighting=Weighting.SIF, corpus=corpus), sif)
    total = 10 * sum(range(1, len(table) + 1))
    own = {"the": 1e-3 / (1e-3 + 10 / total), "cat": 1e-3 / (1e-3 + 20 / total), "new": 1.0}
    check("own counts", ImportOptions(weighting=Weighting.SIF), own)
    (tmp_path / "w.txt").write_text("the 0.25\ncat\t2\nother 7\n")
    by_file = ImportOptions(weights_file=tmp_path / "w.txt")
    check("file", by_file, {"the": 0.25, "cat": 2.0, "new": 1.0})


def test_a_table_may_be_rounded_to_8_bits(fasttext: Path) -> None:
    """A quarter of the memory, near vectors; weights are multiplied behind it."""
    words = list(EXPECTED["vectors"])
    expected = np.array(list(EXPECTED["vectors"].values()))
    given = raw_vectors_of(fasttext, words, rounds_table=True)
    error = np.abs(given - expected).max()
    assert 1e-5 < error < np.abs(expected).max() / 127


def test_a_classifiers_labels_have_no_rows(tmp_path: Path) -> None:
    """Of version 11, classifiers have no n-grams, whatever their arguments say."""
    table = vectors(3)
    path = tmp_path / "c.bin"
    content = fasttext_model(
        table, np.zeros((0, 3), np.float32), version=11, model=3, labels=("__label__a",)
    )
    path.write_bytes(content)
    report = import_table(path, tmp_path / "model")
    assert (report.words, report.buckets) == (len(table), 0)
    (given,) = raw_vectors_of(tmp_path / "model", ["sat"])
    np.testing.assert_allclose(given, table["sat"], atol=1e-6)


def broken() -> dict[str, tuple[bytes, str]]:
    """Return files that are refused, each with words of the message."""
    table = vectors(3)
    buckets = np.ones((4, 3), np.float32)
    text = text_table(table, has_header=True)
    lines = text.split(b"\n")
    binary, model = binary_table(table), fasttext_model(table, buckets)
    number = b"1.0 nan 2.0"
    return {
        "empty": (b"", "empty"),
        "no table": (b"hello world\n", "line 1.*GloVe"),
        "too few lines": (b"\n".join(lines[:-2]) + b"\n", "line 10.*ends after 8 words"),
        "too many lines": (text + lines[1] + b"\n", "line 11.*states 9 words"),
        "a short line": (text.replace(lines[4], b"x 1 2"), "line 5: not a word and 3 numbers"),
        "no number": (text.replace(lines[4], b"x 1 2 y"), "line 5"),
        "not finite": (text.replace(lines[4], b"x " + number), "line 5: NaN"),
        "huge": (b"9 99999\n" + text, "line 1: vectors of 99999"),
        "binary, cut": (binary[:-9], r"byte \d+: the file ends in the vector of word 9 of 9"),
        "binary, not finite": (binary[:-5] + b"\xff\xff\xff\x7f\n", r"byte \d+: NaN"),
        "model, cut": (model[:-9], r"byte \d+: the file ends in the n-grams' rows"),
        "model, old": (fasttext_model(table, buckets, version=9), "version 9"),
        "quantised": (fasttext_model(table, buckets, is_quantised=True), r"\.ftz.*take the \.bin"),
        "model, shape": (
            model.replace(b"\x0d\0\0\0\0\0\0\0\x03", b"\x0e\0\0\0\0\0\0\0\x03"),
            "corrupt",
        ),
        "zip": (b"PK\x03\x04abc", "zip archive; unpack it"),
        "gzip, cut": (gzip.compress(text)[:-20], "cannot be read|ends"),
        "pickle": (b"\x80\x04\x95abc", "pickle"),
        "database": (b"SQLite format 3\0" + bytes(100), "not a Magnitude file"),
    }


@pytest.mark.parametrize("name", broken())
def test_a_broken_file_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    """The message names line or byte; nothing is left on the disk."""
    content, words = broken()[name]
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=words):
        import_table(path, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_imported_is_said(tmp_path: Path) -> None:
    """ELMo's Magnitude, weights without a corpus or of other words, and a folder that exists."""
    write_magnitude(tmp_path / "elmo", vectors(), more=1)
    with pytest.raises(FormatError, match="ELMo"):
        import_table(tmp_path / "elmo", tmp_path / "model")
    path = tmp_path / "t.txt"
    path.write_bytes(text_table(vectors(), has_header=False))
    with pytest.raises(FormatError, match="need a corpus"):
        import_table(path, tmp_path / "model", ImportOptions(weighting=Weighting.SIF))
    for content, words in (("other 1\n", "none of its words"), ("the 1\ncat x\n", "line 2")):
        (tmp_path / "w").write_text(content)
        with pytest.raises(FormatError, match=words):
            import_table(path, tmp_path / "model", ImportOptions(weights_file=tmp_path / "w"))
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtefactError, match="exists already"):
        import_table(path, tmp_path / "model")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("word_table", 2, "word_table"),
        ("subwords", {"kind": "ngrams"}, "subwords"),
        ("subwords", {"kind": "other"}, "subwords"),
        ("subwords", [1], "subwords"),
        ("first_row", 200, "subwords"),
        ("max_chars", 0, "subwords"),
        ("buckets", True, "subwords"),
        ("weights", 3, "one a row"),
    ],
)
def test_a_folder_whose_files_do_not_fit_is_refused(
    tmp_path: Path, field: str, value: object, words: str
) -> None:
    """The message names the field."""
    import_table(HERE / "fasttext.bin", tmp_path / "model")
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    if field == "weights":
        table = load_file(tmp_path / "model/model.safetensors")["embeddings"]
        tensors = {"embeddings": table, "weights": np.ones(3, np.float32)}
        save_file(tensors, tmp_path / "model/model.safetensors")
    elif field in config:
        config[field] = value
    else:
        config["subwords"][field] = value
    path.write_text(json.dumps(config))
    with pytest.raises(FormatError, match=words):
        read_model_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "name"),
    [("cc.en.300.bin.gz", "cc.en.300"), ("glove.txt", "glove"), (".bin", "words")],
)
def test_a_models_name_is_the_files_without_its_endings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    """Where none is given; the folder has it too, in the working directory without models_dir."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NESTVEC_MODELS_DIR", raising=False)
    (tmp_path / file).write_bytes(text_table(vectors(2), has_header=False))
    done = CliRunner().invoke(group, ["model", "import", file])
    assert done.exit_code == 0, done.output
    assert (tmp_path / name / "model.safetensors").is_file()
