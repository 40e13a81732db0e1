"""Settings: the order of their sources, all problems at once, misspelt names."""

from pathlib import Path

import pytest
from nestvec.config.loading import load_settings
from nestvec.config.settings import DOCUMENTED_FIRST, Settings
from nestvec.errors import ConfigError
from nestvec.keys.records import KeyFile, KeyLimits


def problems(error: pytest.ExceptionInfo[ConfigError]) -> str:
    """All problems of an error, a line each."""
    return "\n".join(error.value.problems)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source fills in what the stronger ones leave out."""
    file = tmp_path / "nestvec.toml"
    file.write_text(
        'port = 1\nmax_batch_tokens = 2\nlookahead_items = 3\nmodel_aliases = ["x", "y"]\n'
    )
    monkeypatch.setenv("NESTVEC_PORT", "10")
    monkeypatch.setenv("NESTVEC_MAX_BATCH_TOKENS", "20")
    settings = load_settings({"port": "100"}, config=file)
    assert (settings.port, settings.max_batch_tokens, settings.lookahead_items) == (100, 20, 3)
    assert settings.model_aliases == ["x", "y"]
    monkeypatch.setenv("NESTVEC_CONFIG", str(file))
    assert load_settings().lookahead_items == 3


def test_all_problems_are_listed_each_naming_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Problems of three sources, misspelt names, and problems across settings are all listed."""
    file = tmp_path / "nestvec.toml"
    file.write_text("lookahead_items = 0\n")
    monkeypatch.setenv("NESTVEC_PORT", "99999")
    monkeypatch.setenv("NESTVEC_MODLE", "x")
    with pytest.raises(ConfigError) as error:
        load_settings({"max_batch_tokens": "many", "host": "0.0.0.0"}, config=file)  # noqa: S104 - refused here
    text = problems(error)
    assert "NESTVEC_MODLE: no such setting; did you mean NESTVEC_MODEL?" in text
    assert "NESTVEC_PORT: Input should be less than or equal to 65535" in text
    assert "--max-batch-tokens: Input should be a valid integer" in text
    assert "lookahead_items (in the configuration file): Input should be greater" in text
    assert "host: 0.0.0.0 is reachable from outside and no API key is set" in text
    assert len(error.value.problems) == 5


def test_unknown_keys_of_the_file_are_problems(tmp_path: Path) -> None:
    """An unknown key is a problem, with a suggestion."""
    file = tmp_path / "nestvec.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(ConfigError) as error:
        load_settings(config=file)
    assert "prot (in the configuration file): no such setting; did you mean port?" in problems(
        error
    )


@pytest.mark.parametrize(("content", "reason"), [("port = ", "config: "), (None, "does not exist")])
def test_a_file_that_cannot_be_read_is_a_problem(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    """A broken file and an absent one are problems."""
    file = tmp_path / "nestvec.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        load_settings(config=file)


def test_keys_from_list_and_file_are_never_shown(tmp_path: Path) -> None:
    """Keys of the list and of a mounted file are read, without comments and blank lines, and are not in the repr."""
    file = tmp_path / "keys"
    file.write_text("# customers\nsecret-b\n\n  secret-c \n")
    settings = load_settings({"api_keys": "secret-a, secret-d", "api_keys_file": str(file)})
    assert settings.secrets == ("secret-a", "secret-d", "secret-b", "secret-c")
    assert "secret-a" not in repr(settings)


def test_a_file_of_keys_must_be_readable(tmp_path: Path) -> None:
    """A file of keys that cannot be read is an error, as the server would be open without it."""
    with pytest.raises(ConfigError, match="api_keys_file: cannot be read"):
        load_settings({"api_keys_file": str(tmp_path / "absent")})


def test_a_bad_value_of_a_secret_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors name the setting, not what it held."""
    monkeypatch.setenv("NESTVEC_PORT", "secret-port")
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert "secret-port" not in problems(error)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org"])  # noqa: S104 - refused here
def test_an_open_address_needs_a_key_or_a_word(host: str) -> None:
    """An address that others can reach needs a key, or a setting that allows it without one."""
    with pytest.raises(ConfigError):
        load_settings({"host": host})
    assert load_settings({"host": host, "api_keys": "k"}).host == host
    assert load_settings({"host": host, "allow_unauthenticated": True}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    """A loopback address, as `make serve` uses it, needs no key."""
    assert load_settings({"host": host}).host == host


def test_what_kubernetes_injects_is_not_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service named "nestvec" sets NESTVEC_PORT to an address, and more variables; none of them counts."""
    monkeypatch.setenv("NESTVEC_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("NESTVEC_PORT_8080_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("NESTVEC_SERVICE_HOST", "10.0.0.1")
    assert load_settings().port == 8080


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache lies in XDG_CACHE_HOME by default, and a tilde in its path is expanded."""
    monkeypatch.delenv("NESTVEC_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert load_settings().cache_dir == Path("/somewhere/nestvec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert load_settings().cache_dir == Path.home() / ".cache/nestvec"
    assert load_settings({"cache_dir": "~/x"}).cache_dir == Path.home() / "x"


def test_the_order_of_the_documentation() -> None:
    """What most operators set comes first, then each topic as its class declares it."""
    names = list(Settings.model_fields)
    assert tuple(names[: len(DOCUMENTED_FIRST)]) == DOCUMENTED_FIRST
    remaining = names[len(DOCUMENTED_FIRST) :]
    declared = [name for group in Settings.__bases__ for name in getattr(group, "model_fields", ())]
    assert remaining == [name for name in declared if name not in DOCUMENTED_FIRST]


def test_every_setting_has_a_description() -> None:
    """The flags and the documentation are made of the descriptions."""
    assert all(field.description for field in Settings.model_fields.values())


def test_names_that_stand_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases are a table in the file and JSON elsewhere; wrong ones are problems."""
    file = tmp_path / "n.toml"
    file.write_text('[aliases.docs-128]\nprompt_name = "document"\ndimensions = 128\n')
    alias = load_settings({}, config=file).aliases["docs-128"]
    assert (alias.prompt_name, alias.dimensions) == ("document", 128)
    monkeypatch.setenv("NESTVEC_ALIASES", '{"small": {"dimensions": 64}}')
    assert load_settings().aliases["small"].dimensions == 64
    for wrong in ("{", '{"a": {"dimension": 4}}', '{"a": {"dimensions": 0}}'):
        monkeypatch.setenv("NESTVEC_ALIASES", wrong)
        with pytest.raises(ConfigError, match="NESTVEC_ALIASES"):
            load_settings()


def test_further_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further models are a table in the file, JSON, or sources; what one leaves out is as for the first."""
    file = tmp_path / "nestvec.toml"
    file.write_text(
        'model = "first"\npicture_model = "eyes"\nprecision = "int8"\n'
        '[models.ranks]\nmodel = "org/ranks"\nload = "first_use"\n'
        'max_input_tokens = 64\naliases = ["rerank"]\n[aliases.short]\nmodel = "ranks"\ndimensions = 4\n'
    )
    per_model = load_settings({}, config=file).per_model()
    assert list(per_model) == ["", "ranks"]
    assert (per_model[""].model, per_model[""].aliases) == ("first", {})
    ranks = per_model["ranks"]
    assert (per_model[""].picture_model, ranks.picture_model) == ("eyes", "")
    assert (ranks.model, ranks.served_model_name, ranks.precision) == ("org/ranks", "ranks", "int8")
    assert (ranks.max_input_tokens, ranks.model_aliases) == (64, ["rerank"])
    assert (list(ranks.aliases), ranks.openai_aliases) == (["short"], False)
    monkeypatch.setenv("NESTVEC_MODELS", "org/one, two")
    listed = load_settings().per_model()
    assert {name: model_settings.model for name, model_settings in listed.items() if name} == {
        "org/one": "org/one",
        "two": "two",
    }
    assert listed["two"].served_model_name is None
    both = '{"a": {"model": "x", "keep": true, "picture_model": "other eyes"}}'
    monkeypatch.setenv("NESTVEC_MODELS", both)
    assert load_settings().models["a"].keep
    assert load_settings().per_model()["a"].picture_model == "other eyes"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[models.a]\nload = "never"\nmodel = "x"\n', "load"),
        ('[models.a]\naliases = ["b"]\n', "model"),
        ('[models.a]\nmodel = "x"\nport = 1\n', "port"),
        ('[aliases.a]\nmodel = "none"\n', "aliases.a.model"),
        ('model = "x"\n[models.X]\nmodel = "y"\n', "given to two models"),
        ('[models.a]\nmodel = "y"\naliases = ["b"]\n[models.b]\nmodel = "z"\n', "two models"),
        ("admin_api = true\n", "admin_api: needs a key with the admin right"),
        ('admin_api = true\napi_keys = ["k"]\n', "nestvec keys add NAME --admin"),
    ],
)
def test_models_that_make_no_sense(tmp_path: Path, text: str, named: str) -> None:
    """Each contradiction in the models is named."""
    file = tmp_path / "nestvec.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, config=file)
    assert any(named in problem for problem in caught.value.problems), caught.value.problems


def test_admin_keys_are_keys(tmp_path: Path) -> None:
    """Keys with the admin right count as keys, of the settings and of the file."""
    settings = load_settings({"admin_api": True, "admin_keys": "a,b", "api_keys": "c"})
    assert (settings.secrets, settings.admin_secrets) == (("c", "a", "b"), ("a", "b"))
    file = KeyFile.read(tmp_path / "keys.json")
    file.add("someone", KeyLimits())
    file.write()
    flags = {"admin_api": True, "keys_file": str(file.path), "host": "0.0.0.0"}  # noqa: S104 - not bound
    with pytest.raises(ConfigError) as error:
        load_settings(flags)
    assert len(error.value.problems) == 1
    file.add("operator", KeyLimits(), is_admin=True)
    file.write()
    assert load_settings(flags).admin_api


def test_empty_variables_mean_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing, as compose's ${X:-} does, is none: the file's value or the default counts."""
    file = tmp_path / "nestvec.toml"
    file.write_text("max_batch_tokens = 2\n")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"NESTVEC_{name.upper()}", "")
    monkeypatch.setenv("NESTVEC_NO_SUCH_SETTING", "")
    monkeypatch.setenv("NESTVEC_CONFIG", "")
    assert load_settings().port == 8080
    assert load_settings().served_model_name is None
    assert load_settings(config=file).max_batch_tokens == 2


@pytest.mark.parametrize("service", ["", "CPU_", "OPERATIONS_", "GPU_0_", "MY_LONG_NAME_"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_what_kubernetes_injects_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, service: str, protocol: str
) -> None:
    """The variables of a Service, whatever it is called, change nothing and are no typos."""
    url = f"{protocol.lower()}://10.0.0.1:8080"
    for name, value in (
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("SERVICE_PORT_HTTP", "8080"),
        ("SERVICE_PORT_HTTP_METRICS", "9090"),
        ("PORT", url),
        (f"PORT_8080_{protocol}", url),
        (f"PORT_8080_{protocol}_PROTO", protocol.lower()),
        (f"PORT_8080_{protocol}_PORT", "8080"),
        (f"PORT_8080_{protocol}_ADDR", "10.0.0.1"),
    ):
        monkeypatch.setenv(f"NESTVEC_{service}{name}", value)
    settings = load_settings()
    assert (settings.port, settings.operations_port, settings.host) == (8080, 0, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("CPU_PORT", "8080"), ("PROT", "8080"), ("SERVICE_HOSTS", "x"), ("PORT_8080", "x")),
        *(("SERVICES_PORT", "1"), ("OPERATION_PORT", "9090"), ("HOSTS", "tcp:/x")),
    ],
)
def test_typos_are_still_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable that no Service has is a problem, however near its name comes."""
    monkeypatch.setenv(f"NESTVEC_{name}", value)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert f"NESTVEC_{name}: no such setting" in problems(error)


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing says the home folder, that is a problem with a way out, and none once the folders are set."""

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "NESTVEC_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert "HOME is not set" in problems(error)
    assert load_settings({"cache_dir": str(tmp_path), "data_dir": str(tmp_path)}).port == 8080
