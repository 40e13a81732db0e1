"""The tokenizer report, on texts made by hand."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from nestvec.cli.tokens import command
from nestvec.corpus.reports.statistics.token_figures import (
    TokenFigures,
    advice,
    as_rows,
    measure_texts,
    script_of,
)
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.errors import FormatError


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    """A tokenizer of words, letters and continuations, of Latin letters only."""
    return Tokenizer(tiny_folder / "tokenizer.json", max_tokens=8, vocabulary_size=128)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("alpha", "latin"),
        ("привет world мир", "cyrillic"),
        ("日本", "cjk"),
        ("ελλάδα", "greek"),
        ("12 + 3!", "other"),
        ("", "other"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    """A text's script is that of most of its letters; digits and punctuation have none."""
    assert script_of(text) == script


def test_figures_by_hand(tokenizer: Tokenizer) -> None:
    """Whole words, split words, unknown tokens and texts over the limit are counted as by hand."""
    texts = ["alpha red", "xy", "one two three four red green blue", "мир"]
    groups = measure_texts([("", text) for text in texts], tokenizer)
    latin, cyrillic = groups["latin"], groups["cyrillic"]
    assert (latin.texts, latin.words, latin.whole_words) == (3, 10, 9)
    assert latin.tokens == 11  # "xy" falls into two
    assert latin.tokens_per_word == pytest.approx(1.1)
    assert latin.bytes_per_token == pytest.approx(sum(map(len, texts[:3])) / 11)
    assert (latin.unknown, latin.cut) == (0, 1)
    assert latin.quantile(1) == 9  # special tokens count
    assert (cyrillic.unknown_rate, cyrillic.whole_words) == (1.0, 0)
    row = as_rows(groups, tokenizer)[-1]
    assert (row["language"], row["texts"], row["tokens"]) == ("all", 4, 12)


def test_evenness_is_one_where_all_tokens_are_alike() -> None:
    """Rényi efficiency is 1 where all tokens occur alike, and 0 where only one does."""
    figures = TokenFigures()
    figures.ids.update(range(16))
    assert figures.renyi_efficiency(16) == pytest.approx(1)
    assert figures.renyi_efficiency(256) == pytest.approx(math.log(16) / math.log(256))
    single = TokenFigures()
    single.ids.update([3, 3, 3])
    assert single.renyi_efficiency(16) == pytest.approx(0)
    assert TokenFigures().renyi_efficiency(16) == 0


def test_advice_names_what_is_wrong(tokenizer: Tokenizer) -> None:
    """Advice names what is wrong with each group, and is empty where all is well."""
    good = measure_texts([("en", "alpha red")] * 30, tokenizer)
    assert advice(good, tokenizer) == []
    bad = measure_texts(
        [("en", "alpha red " * 9)] * 30 + [("ru", "мир")] * 30 + [("xx", "qqqqqq")] * 30, tokenizer
    )
    lines = advice(bad, tokenizer)
    assert [line.partition(":")[0] for line in lines] == ["en", "ru", "xx"]
    assert "over 8 tokens" in lines[0]
    assert "unknown" in lines[1]
    assert "6.0 tokens on average" in lines[2]


def test_the_command(tiny_folder: Path, tmp_path: Path) -> None:
    """The command prints a table or JSON, groups by a column of languages, and refuses a file without texts."""
    rows = [{"text": "alpha red", "lang": "en"}, {"text": "мир", "lang": "ru"}] * 25
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    base = [str(file), "--model", str(tiny_folder), "--cache-dir", str(tmp_path / "cache")]
    table = CliRunner().invoke(command, base)
    assert table.exit_code == 0, table.output
    assert "cyrillic" in table.output
    assert "100.00%" in table.output
    result = CliRunner().invoke(
        command, [*base, "--json", "--language-column", "lang", "--most", "44"]
    )
    content = json.loads(result.output[result.output.index("{") :])
    assert [row["language"] for row in content["groups"]] == ["en", "ru", "all"]
    assert content["groups"][2]["texts"] == 44
    assert len(content["advice"]) == 1
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    done = CliRunner().invoke(command, [str(empty), *base[1:]])
    assert isinstance(done.exception, FormatError)
