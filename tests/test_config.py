"""Settings: a bank that must not start says which variable is wrong and what to put there, and no secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distribank.breakages import Misconfigured
from distribank.config import EXAMPLE, PREFIX, Settings, environment_names

EXAMPLE_FILE = Path(__file__).parent.parent / ".env.example"
A_BANK = EXAMPLE_FILE.read_text(encoding="utf-8").partition("# ---- a bank ----")[2]
SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"
GOOD = {
    "BANK_CODE": "99990001",
    "BANK_NAME": "Banco Um",
    "NETWORK_FILE": "../network.json",
    "PRIVATE_KEY_FILE": "key.pem",
    "TOKEN_SECRET": SECRET,
    "OPERATOR_PASSWORD": SECRET,
}


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment_names():
        monkeypatch.delenv(name, raising=False)


def env_file(directory: Path, *, mode: int = 0o600, without: str = "", **changes: str) -> Path:
    values = {name: value for name, value in {**GOOD, **changes}.items() if name != without}
    file = directory / "bank.env"
    file.write_text("".join(f"{PREFIX}{name}={value}\n" for name, value in values.items()))
    file.chmod(mode)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        Settings.load(file)
    return str(refused.value)


def test_what_network_init_writes_is_enough(tmp_path: Path) -> None:
    settings = Settings.load(env_file(tmp_path))

    assert (settings.bank_code, settings.host, settings.port) == ("99990001", "127.0.0.1", 8000)
    assert settings.vote_deadline == 2.0
    assert settings.token_lifetime == 3600
    assert settings.position_limit_centavos is None


def test_relative_paths_are_relative_to_the_env_file(tmp_path: Path) -> None:
    settings = Settings.load(env_file(tmp_path))

    assert settings.network_file == tmp_path / "../network.json"
    assert settings.private_key_file == tmp_path / "key.pem"
    assert settings.database_url == f"sqlite:///{tmp_path}/bank.db"
    assert settings.database_url == f"sqlite:///{tmp_path}/bank.db"


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    settings = Settings.load(
        env_file(tmp_path, DATABASE_URL="sqlite:////var/lib/bank.db", NETWORK_FILE="/etc/net.json")
    )

    assert settings.database_url == "sqlite:////var/lib/bank.db"
    assert settings.network_file == Path("/etc/net.json")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "9123")

    assert Settings.load(env_file(tmp_path, PORT="8001")).port == 9123


def test_a_value_is_taken_literally(tmp_path: Path) -> None:
    secret = "'${HOME} and $PATH, and some more characters'"

    settings = Settings.load(env_file(tmp_path, TOKEN_SECRET=secret))

    assert settings.token_secret.get_secret_value() == secret.strip("'")


@pytest.mark.parametrize("name", ["BANK_CODE", "NETWORK_FILE", "TOKEN_SECRET", "OPERATOR_PASSWORD"])
def test_a_missing_setting_is_named(tmp_path: Path, name: str) -> None:
    assert f"{PREFIX}{name}: is missing" in refusal(env_file(tmp_path, without=name))


@pytest.mark.parametrize("name", ["TOKEN_SECRET", "OPERATOR_PASSWORD", "METRICS_TOKEN"])
@pytest.mark.parametrize("value", ["change-me", f"{EXAMPLE}-to-the-output-of-openssl-rand-hex-32", "tooshort"])
def test_an_example_or_short_secret_is_refused_by_name_and_never_repeated(
    tmp_path: Path, name: str, value: str
) -> None:
    message = refusal(env_file(tmp_path, **{name: value}))

    assert f"{PREFIX}{name}: " in message
    assert value not in message


def test_every_secret_of_the_example_file_is_refused(tmp_path: Path) -> None:
    examples = dict(re.findall(rf"^#? ?{PREFIX}(\w+)=(change.*)$", A_BANK, re.MULTILINE))

    assert set(examples) == {"TOKEN_SECRET", "OPERATOR_PASSWORD", "METRICS_TOKEN"}
    for name, value in examples.items():
        assert f"{PREFIX}{name}: is the example value" in refusal(env_file(tmp_path, **{name: value}))


def test_the_example_file_documents_every_variable_and_no_other() -> None:
    documented = re.findall(rf"^#? ?({PREFIX}\w+)=", A_BANK, re.MULTILINE)

    assert sorted(documented) == sorted(environment_names())


def test_the_example_file_states_the_defaults(tmp_path: Path) -> None:
    lines = re.findall(rf"^{PREFIX}(\w+)=(.*)$", A_BANK, re.MULTILINE)
    stated = {name: value for name, value in lines if not value.startswith(EXAMPLE)}

    assert Settings.load(env_file(tmp_path, **stated)) == Settings.load(env_file(tmp_path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = env_file(tmp_path, mode=mode)

    assert refusal(file).endswith(f"chmod 600 {file}")


def test_a_file_that_is_not_there_is_refused_with_what_writes_one(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere.env")

    assert "No such file" in message
    assert "network init" in message


@pytest.mark.parametrize("name", [f"{PREFIX}BANC_CODE", "OTHER_NAME"])
def test_a_name_that_no_bank_knows_is_an_error(tmp_path: Path, name: str) -> None:
    file = env_file(tmp_path)
    file.write_text(file.read_text() + f"{name}=x\n")

    assert f"sets {name}, which no bank knows" in refusal(file)


@pytest.mark.parametrize(
    "line", [SECRET, f"{SECRET}=", f"{PREFIX}TOKEN_SECRET{SECRET}", "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm8=="]
)
def test_a_secret_that_slipped_to_a_line_of_its_own_is_not_repeated(tmp_path: Path, line: str) -> None:
    file = env_file(tmp_path, without="TOKEN_SECRET")
    file.write_text(file.read_text() + line + "\n")

    assert "no variable's name" in refusal(file)
    assert line.rstrip("=")[-20:] not in refusal(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BANK_CODE", "1234"),
        ("BANK_CODE", "9999000１"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("VOTE_DEADLINE", "0"),
        ("VOTE_DEADLINE", "121"),
        ("POSITION_LIMIT", "1000"),
        ("DATABASE_URL", "mysql://bank"),
        ("RETENTION_DAYS", "0"),
        ("PASSWORD_PROFILE", "fast"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("OTLP_ENDPOINT", "collector:4318"),
        ("OTLP_ENDPOINT", "http://somebody:password@collector:4318"),
        ("OTLP_ENDPOINT", "http://collector:4318/?key=x"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    assert f"{PREFIX}{name}: " in refusal(env_file(tmp_path, **{name: value}))


def test_an_option_that_is_left_empty_counts_as_left_out(tmp_path: Path) -> None:
    settings = Settings.load(env_file(tmp_path, METRICS_TOKEN="", POSITION_LIMIT=""))

    assert settings.metrics_token is None
    assert settings.position_limit_centavos is None


def test_settings_print_no_secret(tmp_path: Path) -> None:
    assert SECRET not in repr(Settings.load(env_file(tmp_path)))
