"""Settings: what the environment may say, and what a mistake in it is called."""

from dataclasses import FrozenInstanceError, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pixeldojo import settings
from pixeldojo.settings import Settings, SettingsError


def _load(**variables: str) -> Settings:
    return settings.load({f"PIXELDOJO_{name}": text for name, text in variables.items()})


def _fault(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _load(**variables)
    return str(caught.value)


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
    found = settings.load({"HOME": str(tmp_path), "PATH": "/bin", "DATABASE_URL": "postgresql://other"})
    assert found == Settings()
    assert found.database == f"sqlite:///{found.data_dir}/pixeldojo.db"
    assert len(fields(Settings)) <= 40
    with pytest.raises(FrozenInstanceError):
        found.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", " 80 ", 80),
        ("host", "::", "::"),
        ("janitor_interval_s", "0.5", 0.5),
        ("testcard", "1", True),
        ("testcard", " TRUE ", True),
        ("testcard", "yes", True),
        ("testcard", "on", True),
        ("testcard", "0", False),
        ("testcard", "off", False),
        ("testcard", "", False),
        ("roles", "api", ("api",)),
        ("roles", " worker , janitor ", ("worker", "janitor")),
        ("allow_networks", "", ()),
        ("allow_networks", "10.0.0.0/8, ::1,192.168.1.5",
         (ip_network("10.0.0.0/8"), ip_network("::1/128"), ip_network("192.168.1.5/32"))),
        ("models_dir", "", None),
        ("models_dir", "/a/b", Path("/a/b")),
        ("database_url", "postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    ],
)  # fmt: skip
def test_values(name: str, text: str, value: Any) -> None:
    assert getattr(_load(**{name.upper(): text}), name) == value


def test_folders_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _load(DATA_DIR="here").data_dir == tmp_path / "here"
    assert _load(DATA_DIR="~/there").data_dir == tmp_path / "home" / "there"
    assert _load(DATA_DIR="").data_dir == Settings().data_dir


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", ""), ("port", "x"), ("port", "80.5"), ("port", "-1"), ("port", "1e3"), ("port", "9" * 5000),
        ("lease_s", "nan"), ("lease_s", "inf"), ("lease_s", "-0.5"), ("lease_s", "1,5"), ("retention_s", "a day"),
        ("testcard", "maybe"), ("testcard", "2"),
        ("roles", ""), ("roles", ","), ("roles", "api,cook"), ("roles", "API"),
        ("allow_networks", "10.0.0.1/8"), ("allow_networks", "localhost"), ("allow_networks", "10.0.0.0/33"),
        ("allow_networks", "10.0.0.0/8;::1"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used(name: str, text: str) -> None:
    message = _fault(**{name.upper(): text})
    assert message.startswith(f"PIXELDOJO_{name.upper()}: ")
    assert "can't be used" in message


@pytest.mark.parametrize(
    ("variable", "near"),
    [("PORTS", "PORT"), ("DATABASEURL", "DATABASE_URL"), ("TEST_CARD_ON", None), ("DATA_DIRECTORY", "DATA_DIR"),
     ("ZZZZZZ", None), ("DATABASE_URLS_FILE", None), ("", None)],
)  # fmt: skip
def test_an_unknown_variable(variable: str, near: str | None) -> None:
    if variable.startswith("TEST_"):
        assert _load(**{variable: "1"}) == Settings()  # those are the tests' own
        return
    message = _fault(**{variable: "1"})
    assert message.startswith(f"PIXELDOJO_{variable}: there is no such setting")
    if near is not None:
        assert message.endswith(f"did you mean PIXELDOJO_{near}?")


def test_a_setting_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("postgresql://u:p@h/d\n")
    assert _load(DATABASE_URL_FILE=str(path)).database_url == "postgresql://u:p@h/d"
    path.write_text("99")
    assert _load(PORT_FILE=str(path)).port == 99
    path.write_text("ninety")
    assert _fault(PORT_FILE=str(path)).startswith("PIXELDOJO_PORT_FILE: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "", "binary"):
        message = _fault(DATABASE_URL_FILE=str(tmp_path / name))
        assert message.startswith("PIXELDOJO_DATABASE_URL_FILE: can't read")


def test_secrets_are_masked() -> None:
    def shown(found: Settings) -> dict[str, str]:
        return {name: value for name, value, _ in settings.describe(found)}

    rows = shown(_load(DATABASE_URL="postgresql://u:geheim@h/d"))
    assert rows["PIXELDOJO_DATABASE_URL"] == "••••"
    assert "geheim" not in repr(rows)
    assert rows["PIXELDOJO_PORT"] == "8787"
    assert shown(Settings())["PIXELDOJO_DATABASE_URL"] == ""
    assert all(text for _, _, text in settings.describe(Settings()))
    assert len(rows) == len(fields(Settings))


def test_what_clients_read_is_not_the_services_business() -> None:
    assert _load(API_KEY="pd_x", BASE_URL="http://x", API_KEY_FILE="/none") == Settings()
    found = settings.client({"PIXELDOJO_API_KEY": " pd_x ", "PIXELDOJO_BASE_URL": "http://x "})
    assert (found.api_key, found.base_url) == ("pd_x", "http://x")
    assert settings.client({}) == settings.Client(base_url="", api_key="")


def test_a_clients_key_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pd_file\n")
    assert settings.client({"PIXELDOJO_API_KEY_FILE": str(tmp_path / "key")}).api_key == "pd_file"
    both = {"PIXELDOJO_API_KEY_FILE": str(tmp_path / "key"), "PIXELDOJO_API_KEY": "pd_own"}
    assert settings.client(both).api_key == "pd_own"
    with pytest.raises(SettingsError, match="PIXELDOJO_API_KEY_FILE"):
        settings.client({"PIXELDOJO_API_KEY_FILE": str(tmp_path / "none")})


def test_engines_see_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELDOJO_DATABASE_URL", "postgresql://u:geheim@h/d")
    private = (
        "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD",
        "HF_TOKEN", "some_api_key", "SSH_AUTH_SOCK", "OTEL_EXPORTER_OTLP_HEADERS", "DB_PASSWORD",
    )  # fmt: skip
    wanted = ("HF_HOME", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD")
    for name in (*private, *wanted):
        monkeypatch.setenv(name, "geheim")
    monkeypatch.setenv("REDIS_URL", "redis://:geheim@host/0")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    child = settings.child_environment()
    assert {*wanted, "PATH", "HTTPS_PROXY"} <= set(child)
    assert not {*private, "REDIS_URL"} & set(child)
    assert not [name for name in child if name.startswith("PIXELDOJO_")]
