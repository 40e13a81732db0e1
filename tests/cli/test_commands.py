"""The other verbs, in this process: help, embed, export, config, model pull and more."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.execution import execution_settings_for
from nestvec.assembly.package import prepare_model
from nestvec.cli import VERBS, group, main
from nestvec.cli.config import settings_markdown
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings

from tests.support.tiny import write_tiny_bert

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, and a cache of its own."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    return write_tiny_bert(tmp_path / "model")


def invoke(*arguments: str) -> Result:
    """Run a verb."""
    return CliRunner().invoke(group, arguments, catch_exceptions=True)


def test_help_lists_every_verb() -> None:
    """Help shows every verb with its sentence."""
    text = invoke("--help").output
    assert all(verb in text and sentence in text for verb, sentence in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    """Every verb shows its own options."""
    done = invoke(verb, "--help")
    assert done.exit_code == 0
    assert "--help" in done.output


def test_serve_has_a_flag_for_each_setting() -> None:
    """Each setting has a flag of its name."""
    text = invoke("serve", "--help").output.replace("\n", " ")
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text


def test_the_usual_settings_come_first_and_the_others_by_topic() -> None:
    """`serve --help` describes what is usually set and names the rest; `--help-all` describes everything by topic."""
    short, whole = invoke("serve", "--help").output, invoke("serve", "--help-all").output
    assert short.index("--model NAME") < short.index("--max-json-depth")
    assert "Deepest nesting" not in short
    assert len(short.splitlines()) < len(whole.splitlines()) / 2
    title = "How large a request may be, in inputs, tokens, vectors and bytes:"
    assert whole.index(title) < whole.index("--max-json-depth N")
    for flag in (
        "--gpu-memory-utilization SHARE",
        "--models A,B|JSON",
        "--max-batch-ms MILLISECONDS",
    ):
        assert flag in whole


@pytest.mark.parametrize(
    ("typed", "meant"), [("srve", "serve"), ("pull", "model pull"), ("modle", "model")]
)
def test_a_misspelt_verb_is_told_the_right_one(typed: str, meant: str) -> None:
    """An unknown verb is answered with the one that was meant."""
    done = invoke(typed)
    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in done.output


def test_shells_complete_verbs_and_flags() -> None:
    """Completion, as the README sets it up, knows verbs that are not imported yet, and their flags."""

    def completed(words: str) -> set[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        environment = {"_NESTVEC_COMPLETE": "bash_complete", **asked}
        output = CliRunner().invoke(group, [], prog_name="nestvec", env=environment).output
        return {line.partition(",")[2] for line in output.split()}

    assert completed("nestvec mo") == {"model"}
    assert completed("nestvec model pul") == {"pull"}
    assert {"--truncate", "--trusted-hosts"} <= completed("nestvec serve --tru")


def test_the_settings_page_is_up_to_date() -> None:
    """The page of all settings is what `make docs` writes."""
    assert (ROOT / "docs/configuration.md").read_text() == settings_markdown()


def test_config_masks_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are shown as they would be used, without keys."""
    monkeypatch.setenv("NESTVEC_API_KEYS", "very-secret")
    done = invoke("config", "--port", "1234")
    assert "port = 1234" in done.output
    assert "very-secret" not in done.output


def test_config_says_where_each_value_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value's source stands behind it; --toml is a file of what is not the default, and reads back."""
    file = tmp_path / "nestvec.toml"
    file.write_text('max_batch_ms = 5\n[aliases.q]\nprompt_name = "query"\n')
    monkeypatch.setenv("NESTVEC_TRUNCATE", "end")
    monkeypatch.setenv("NESTVEC_API_KEYS", "very-secret")
    flags = ("--config", str(file), "--port", "1234", "--models", "a,b")
    shown = invoke("config", *flags).output
    for line in (
        "port = 1234  # --port",
        'truncate = "end"  # NESTVEC_TRUNCATE',
        f"max_batch_ms = 5  # {file}",
        'host = "127.0.0.1"  # default',
        "# served_model_name =  # default",
    ):
        assert line in shown.splitlines()
    toml = invoke("config", "--toml", *flags).output
    assert "very-secret" not in toml
    assert "host" not in toml
    file.write_text(toml)
    monkeypatch.delenv("NESTVEC_TRUNCATE")
    before, after = load_settings({"port": 1234}, config=file), load_settings(config=file)
    assert after.model_dump() == before.model_dump()
    assert (after.truncate, after.max_batch_ms, list(after.models)) == ("end", 5, ["a", "b"])
    assert after.aliases["q"].prompt_name == "query"


def test_config_init_writes_every_setting(tmp_path: Path) -> None:
    """The file changes nothing as it is; with its lines in force it says the defaults; it replaces no other file."""
    file = tmp_path / "nestvec.toml"
    assert invoke("config", "init", str(file)).exit_code == 0
    defaults = load_settings().model_dump()
    assert load_settings(config=file).model_dump() == defaults
    text = file.read_text()
    assert set(re.findall(r"^#(\w+) =", text, re.MULTILINE)) == set(Settings.model_fields)
    file.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert load_settings(config=file).model_dump() == defaults
    assert invoke("config", "init", str(file)).exit_code == 2


def test_verbs_that_talk_to_a_server_share_their_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server is and the file of its key come from two variables, which are no settings."""
    (tmp_path / "key").write_text("a-key\n")
    monkeypatch.setenv("NESTVEC_URL", "http://127.0.0.1:9/v1/")
    monkeypatch.setenv("NESTVEC_KEY_FILE", str(tmp_path / "key"))
    for verb in ("batch", "bench", "embed", "quality"):
        assert "[env: NESTVEC_URL]" in " ".join(invoke(verb, "--help").output.split())
    done = invoke("batch", "list")
    assert str(done.exception).startswith("http://127.0.0.1:9 cannot be reached")
    assert "no request was answered" in invoke("bench", "--duration-s", "0.2").output
    assert load_settings().port == 8080
    done = invoke("embed", str(tmp_path / "key"), str(tmp_path / "out.npy"), "--model", "static")
    assert done.exit_code == 2
    assert "--server-model" in done.output


def test_embed_writes_vectors(model: Path, tmp_path: Path) -> None:
    """Vectors are written; long texts are cut and counted."""
    (tmp_path / "in.csv").write_text("body\nalpha\n" + "beta " * 60 + "\n")
    out = tmp_path / "out.npy"
    done = invoke(
        *("embed", str(tmp_path / "in.csv"), str(out), "--model", str(model)),
        *("--text-column", "body", "--dimensions", "4"),
    )
    assert done.exit_code == 0, done.output
    assert np.load(out).shape == (2, 4)
    assert "2 vectors" in done.output
    assert "1 texts truncated" in done.output


def test_embed_by_a_recipe(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's vectors are written under its name and space; one that the settings do not have is named."""
    parts = [{"prompt": ""}, {"prompt": "query : ", "dimensions": 4}]
    recipes = {"both": {"combine": "concat", "parts": parts}}
    monkeypatch.setenv("NESTVEC_RECIPES", json.dumps(recipes))
    (tmp_path / "in.txt").write_text("alpha\nred\n")
    command = ("embed", str(tmp_path / "in.txt"), str(tmp_path / "out.npy"), "--model", str(model))
    done = invoke(*command, "--recipe", "none")
    assert done.exit_code == 2
    assert "no recipe 'none'; they have: both" in done.output
    done = invoke(*command, "--recipe", "both")
    assert done.exit_code == 0, done.output
    vectors = np.load(tmp_path / "out.npy")
    assert vectors.shape == (2, 36)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 32:], axis=1) ** 2, 0.5, atol=1e-6)
    described = json.loads((tmp_path / "out.meta.json").read_text())
    assert "both" in json.dumps(described)


def test_export_writes_a_whole_folder(model: Path, tmp_path: Path) -> None:
    """The folder has the graph, weights, the tokenizer, probes, and a description."""
    done = invoke("export", str(tmp_path / "out"), "--model", str(model))
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.onnx", "weights.bin", "tokenizer.json", "probes.npy", "spec.json"}
    assert json.loads((tmp_path / "out/spec.json").read_text())["layout"] == "packed"


def test_export_for_other_programs(model: Path, tmp_path: Path) -> None:
    """The graph is standard ONNX with the usual inputs, and the files are there that tokenizers are loaded from."""
    done = invoke("export", str(tmp_path / "out"), "--model", str(model), "--padded")
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    names = {node.name for node in session.get_inputs()}
    assert names == {"input_ids", "attention_mask", "token_type_ids"}
    assert (tmp_path / "out/config.json").is_file()
    assert json.loads((tmp_path / "out/spec.json").read_text())["layout"] == "padded"


def test_tune_keeps_what_it_finds(model: Path) -> None:
    """The server runs with what tuning has found; settings still win."""
    done = invoke("tune", "--model", str(model), "--limit-s", "2")
    assert done.exit_code == 0, done.output
    for word in ("attention", "budget", "int8-accurate", "kept in"):
        assert word in done.output
    settings = load_settings({"model": str(model)})
    package = prepare_model(settings)
    file = next(package.artefact.glob("tuned-*.json"))
    tuned = ExecutionSettings(**json.loads(file.read_text())["tuned"])
    assert execution_settings_for(settings, package) == tuned
    file.write_text(file.read_text().replace(f"{tuned.max_batch_tokens}", "77"))
    assert execution_settings_for(settings, package).max_batch_tokens == 77
    overridden = settings.model_copy(update={"max_batch_tokens": 99, "plain_attention_tokens": 0})
    assert execution_settings_for(overridden, package).max_batch_tokens == 99
    assert execution_settings_for(overridden, package).plain_attention_tokens == 0


def test_bench_measures_the_engine(model: Path) -> None:
    """The report has each load, single queries, memory, and the share of what the machine could do."""
    done = invoke("bench", "--engine", "--model", str(model), "--rounds", "1")
    assert done.exit_code == 0, done.output
    for word in ("GFLOPS", "short", "paragraph", "long", "mixed", "p99", "peak memory"):
        assert word in done.output


@pytest.mark.parametrize(
    "arguments", [["bench"], ["bench", "http://x", "--engine"], ["bench", "not-a-url"]]
)
def test_bench_says_what_it_needs(arguments: list[str]) -> None:
    """Bench needs either a URL or --engine."""
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "URL" in done.output


def test_bench_of_nothing_is_an_error() -> None:
    """A URL where nobody listens is an error."""
    done = invoke("bench", "http://127.0.0.1:9", "--duration-s", "0.2")
    assert done.exit_code == 1
    assert "no request was answered" in done.output


def test_pull_prepares_a_folder(model: Path) -> None:
    """A model is exported once, and described."""
    done = invoke("model", "pull", str(model))
    assert done.exit_code == 0, done.output
    assert "model: 32 dimensions, 24 tokens, exported" in done.output
    assert "already exported" in invoke("model", "pull", str(model)).output
    assert invoke("model", "pull", str(model), "--folder").stdout.strip() == str(model)


@pytest.mark.parametrize(("flags", "asks_again"), [((), True), (("--if-missing",), False)])
def test_pull_asks_the_source_again_unless_told_not_to(
    flags: tuple[str, ...], *, asks_again: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--if-missing` takes what the cache has, as a server does, so that it needs no network the second time."""
    asked: list[bool] = []

    def prepare(settings: Settings, *, refresh: bool) -> object:
        asked.append(refresh)
        return prepare_model(settings, refresh=refresh)

    monkeypatch.setattr("nestvec.cli.model.group.prepare_model", prepare)
    assert invoke("model", "pull", str(model), *flags).exit_code == 0
    assert asked == [asks_again]


def test_errors_are_printed_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors give exit status 1, or 2 for settings, and no traceback."""
    monkeypatch.setattr("sys.argv", ["nestvec", "model", "pull", "no-such-model"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("nestvec: there is no model 'no-such-model'")
    monkeypatch.setattr("sys.argv", ["nestvec", "config", "--port", "x", "--device-id", "-1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "--port" in shown
    assert "--device-id" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["quality"], "--texts: something to measure on"),
        (["quality", "--sts", __file__, "--dimensions", "a"], "no list of numbers"),
        (["quality", "--sts", __file__, "--dtypes", "int4"], "none of float, int8, binary"),
        (["quality", "--sts", "absent.tsv"], "does not exist"),
        (["quality", "--sts", __file__], "expected score, tab"),
    ],
)
def test_quality_says_what_it_needs(arguments: list[str], reason: str) -> None:
    """Wrong options are refused before a model is loaded."""
    done = invoke(*arguments)
    assert reason in f"{done.output} {done.exception}"


def test_calibrate_sets_the_ranges(model: Path, tmp_path: Path) -> None:
    """Ranges are set by texts of the user, and by the bundled ones again; under `nestvec model` too."""
    first = prepare_model(load_settings({"model": str(model)})).quantizer
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"alpha {n} red\n" for n in range(30)))
    done = invoke("calibrate", str(file), "--model", str(model))
    assert done.exit_code == 0, done.output
    assert done.output.startswith("30 texts; ")
    second = prepare_model(load_settings({"model": str(model)})).quantizer
    assert second.id in done.output
    assert (first.source, second.source) == ("bundled", "texts")
    assert invoke("model", "calibrate", "--model", str(model)).exit_code == 0
    assert prepare_model(load_settings({"model": str(model)})).quantizer.id == first.id
    missing = invoke("calibrate", str(tmp_path / "none.txt"), "--model", str(model))
    assert missing.exit_code == 2


def test_model_check_lists_fields_and_refuses(model: Path) -> None:
    """`model check` says what becomes of each field, and its exit status whether one is refused."""
    done = invoke("model", "check", str(model))
    assert done.exit_code == 0, done.output
    assert 'honoured        config.json: model_type = "bert"' in done.output
    path = model / "config.json"
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({**content, "use_cache": True, "odd": 1, "pruned_heads": {"0": [1]}})
    )
    done = invoke("model", "check", str(model))
    assert done.exit_code == 1
    assert 'refused         config.json: pruned_heads = {"0": [1]}' in done.output
    assert "unknown         config.json: odd = 1" in done.output
    assert "use_cache" not in done.output
    assert "1 without effect, 1 refused, 1 unknown" in done.output
    assert "use_cache" in invoke("model", "check", str(model), "--all").output
