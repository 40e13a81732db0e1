"""`nestvec report`: of a model in this process and of a running server, kept beside the model, several side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.package import prepare_model
from nestvec.cli import group
from nestvec.config.loading import load_settings
from nestvec.model_store.artefacts.kept_reports import read_reports

from tests.support.tiny import WORDS, write_tiny_bert


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny models, texts, and pairs in two forms."""
    folder = tmp_path_factory.mktemp("reports")
    for name in ("one", "two"):
        write_tiny_bert(folder / name)
    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(60)]
    (folder / "texts.txt").write_text("\n".join(texts))
    (folder / "pairs.tsv").write_text("\n".join(f"{text} {WORDS[0]}\t{text}" for text in texts))
    rows = [json.dumps({"title": text[:9], "body": text}) for text in texts]
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder


def run(home: Path, *arguments: str) -> Result:
    """Run the verb with a cache and an output folder of its own."""
    flags = ["--cache-dir", str(home / "cache"), "--offline", "--log-level", "error"]
    return CliRunner().invoke(group, ["report", *arguments, "--out", str(home / "out"), *flags])


def test_a_report_is_printed_written_and_kept(home: Path) -> None:
    """Figures and advice on the terminal, three files, and the figures beside the model; nothing is left over."""
    done = run(home, "robustness", "--model", str(home / "one"), "--pairs", str(home / "pairs.tsv"))
    assert done.exit_code == 0, done.output
    assert "found first, unchanged (share)" in done.stdout
    names = sorted(path.name for path in (home / "out").iterdir())
    assert names == ["robustness.html", "robustness.json", "robustness.md"]
    content = json.loads((home / "out" / "robustness.json").read_text())
    assert content["texts_of"] == "pairs.tsv"
    settings = load_settings(
        {"model": str(home / "one"), "cache_dir": str(home / "cache"), "offline": True}
    )
    kept = read_reports(prepare_model(settings).artefact)
    assert kept["robustness"]["figures"] == content["figures"]
    flags = ["--cache-dir", str(home / "cache"), "--offline"]
    page = CliRunner().invoke(group, ["model", "show", str(home / "one"), "--markdown", *flags])
    assert page.exit_code == 0, page.output
    assert page.stdout.startswith("# one\n")
    assert "## robustness: one" in page.stdout


def test_two_models_side_by_side_and_against_one_another(home: Path) -> None:
    """Several models have columns and differences; `compare` needs two, and the same model agrees with itself."""
    both = ("--model", str(home / "one"), "--model", str(home / "two"))
    done = run(home, "outliers", *both, "--texts", str(home / "texts.txt"), "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [result["model"] for result in content["models"]] == ["one", "two"]
    row = next(row for row in content["side_by_side"] if row["name"].startswith("cosine"))
    assert row["differences"][0]["value"] == 0
    pairs = ("--pairs", str(home / "pairs.jsonl"), "--pair-columns", "title,body")
    compared = run(home, "compare", *both, *pairs, "--texts", str(home / "texts.txt"), "--json")
    assert compared.exit_code == 0, compared.output
    figures = {each["name"]: each["value"] for each in json.loads(compared.stdout)["figures"]}
    assert figures["neighbours kept of ten"] == 1
    assert figures["nDCG@10, first less second"] == 0
    alone = run(home, "compare", "--model", str(home / "one"), "--texts", str(home / "texts.txt"))
    assert isinstance(alone.exception, Exception)
    assert "name both" in str(alone.exception)


def test_what_is_missing_is_named(home: Path) -> None:
    """A report without its texts, wrong columns and unknown names are refused before a model is loaded."""
    for arguments, words in (
        (("drift", "--texts", str(home / "texts.txt")), "a second set of texts"),
        (("robustness",), "'pairs' or 'texts'"),
        (("code", "--pairs", str(home / "texts.txt")), "expected text, tab, text"),
        (("code", "--pair-columns", "a"), "two names with a comma"),
        (("numbers", "--texts", str(home / "texts.txt")), "takes no 'texts'"),
    ):
        done = run(home, *arguments)
        assert words in str(done.exception), done.output
    listed = run(home, "--list")
    assert "--texts --reference" in listed.stdout
    assert "probes of its own" in listed.stdout
    assert run(home, "moods").exit_code == 2
