"""The settings: environment variables in, one frozen object out. The only place that reads the environment.

An unknown `PIXELDOJO_*` variable is an error with a suggestion, so that a typing mistake is not a silent default.
Any setting can be read from a file instead: `PIXELDOJO_DATABASE_URL_FILE=/run/secrets/database-url`.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pixeldojo import limits

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PREFIX = "PIXELDOJO_"
# read by the tests and by clients (`client()` below), not by the service
_OUTSIDE = ("PIXELDOJO_TEST_", "PIXELDOJO_API_KEY", "PIXELDOJO_BASE_URL")


_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_REDIS = ("redis://", "rediss://", "valkey://", "valkeys://")
_NETWORKS = ("allow_networks", "trusted_proxies", "metrics_allow")

# Variables that are no engine's business: ours, those of storages and databases, and whatever is called a secret.
_PRIVATE = re.compile(
    r"^(?:PIXELDOJO_|AWS_|AZURE_|GOOGLE_|PG[A-Z]|OTEL_)"
    r"|(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|AUTH)S?(?:_|$)"
)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")

ROLES = ("api", "worker", "courier", "janitor")


_RANGES = {
    "port": (0, 65535),
    "janitor_interval_s": (0.01, 86_400),
    "lease_s": (0.1, 3600),
    "client_timeout_s": (0.1, 3600),
    "max_attempts": (1, 100),
    "max_body_bytes": (1024, 2**30),
}
_CHOICES = {"log_level": ("debug", "info", "warning", "error"), "log_format": ("auto", "text", "json")}


class SettingsError(Exception):
    """A setting is unknown or has a value that can't be used."""


def _default_data_dir() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "pixeldojo"


def _setting(default: Any, text: str, *, secret: bool = False) -> Any:
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata={"text": text, "secret": secret}, **made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, with a default that works offline."""

    data_dir: Path = _setting(_default_data_dir, "where the database, the pictures and the local key live")
    host: str = _setting("127.0.0.1", "the address to listen on")
    port: int = _setting(8787, "the port to listen on; 0 takes a free one")
    public_url: str = _setting("", "the service's address as clients see it, when a proxy stands in front")
    contact_email: str = _setting("", "whom the plugin manifest names for questions: an e-mail address")
    database_url: str = _setting(
        "", "`postgresql://…`, or `sqlite:///path`; empty: `pixeldojo.db` in the data directory", secret=True
    )
    storage_url: str = _setting(
        "", "where results are kept: `s3://…`, `gs://…`, `az://…`; empty: `assets` in the data directory"
    )
    allow_networks: tuple[Network, ...] = _setting(
        (), "private networks that input pictures may come from and webhooks may go to: `10.0.0.0/8,192.168.1.5`"
    )
    models_dir: Path | None = _setting(None, "a folder with more model cards (`*.json`)")
    testcard: bool = _setting(False, "list the `testcard` model, which draws test patterns in a millisecond")
    client_timeout_s: float = _setting(
        30.0, "how long a client may stall with a request (a body may fall behind 16 KiB/s) or an answer, in seconds"
    )
    max_body_bytes: int = _setting(16 * 2**20, "the largest request body, in bytes")
    retention_s: int = _setting(24 * 3600, "how long results are kept after a job ends, in seconds")
    janitor_interval_s: float = _setting(30.0, "how often the janitor sweeps, in seconds")
    lease_s: float = _setting(15.0, "how long a job stays with a worker that has gone silent, in seconds")
    max_attempts: int = _setting(3, "how often a job is tried before it fails and is refunded")
    account_concurrency: int = _setting(0, "how many jobs of one account may be worked on at once; 0: no bound")
    keep_inputs: bool = _setting(False, "keep prompts and other inputs for as long as the job's metadata")
    metadata_retention_s: int = _setting(
        30 * 24 * 3600, "how long a job's row is kept after its files went, in seconds; at least a day"
    )
    input_timeout_s: float = _setting(15.0, "the time limit for fetching one input picture, in seconds")
    input_max_bytes: int = _setting(10 * 2**20, "the largest input picture, in bytes")
    roles: tuple[str, ...] = _setting(
        ROLES, "what this process does: `api`, `worker`, `courier`, `janitor`, comma-separated"
    )
    webhook_retry_schedule: tuple[float, ...] = _setting(
        (0, 5, 300, 1800, 7200, 18000, 36000, 36000),
        "how long to wait before each attempt to deliver a webhook, in seconds",
    )
    webhook_timeout_s: float = _setting(15.0, "the time limit for one attempt to deliver a webhook, in seconds")
    rate_limit: str = _setting(
        "60/minute", "how many requests a key may make, or an address without one; `off` counts nothing"
    )
    rate_limit_storage: str = _setting(
        "",
        "where requests are counted for several processes: `redis://…` or `valkey://…`; empty: in memory",
        secret=True,
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        (), "networks of reverse proxies whose `X-Forwarded-For` is believed: `10.0.0.0/8,192.168.1.5`"
    )
    metrics_allow: tuple[Network, ...] = _setting(_LOOPBACK, "networks that may read `/metrics`; empty: nobody")
    otlp_endpoint: str = _setting(
        "", "where OpenTelemetry traces go (`http://host:4318`), with the extra `[otel]`; empty: nowhere"
    )
    access_log: bool = _setting(False, "write a line for each request")
    log_level: str = _setting("info", "`debug`, `info`, `warning` or `error`")
    log_format: str = _setting("auto", "`text`, `json`, or `auto`: text on a terminal, JSON elsewhere")

    @property
    def database(self) -> str:
        """The effective database URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'pixeldojo.db'}"


def _is_secret(name: str) -> bool:
    return any(f.name == name and f.metadata["secret"] for f in fields(Settings))


def _parse(name: str, text: str) -> Any:
    kinds: Mapping[str, Any] = {f.name: f.type for f in fields(Settings)}
    kind = kinds[name]
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in ("1", "true", "yes", "on"):
            return True
        if lowered in ("0", "false", "no", "off", ""):
            return False
        raise ValueError("use 1 or 0")
    if name in _NETWORKS:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    if name == "roles":
        roles = tuple(part.strip() for part in text.split(",") if part.strip())
        if not roles or set(roles) - set(ROLES):
            raise ValueError(f"use some of {', '.join(ROLES)}")
        return roles
    if name == "webhook_retry_schedule":
        waits = tuple(float(part) for part in text.split(","))
        if not all(0 <= wait <= 7 * 86400 for wait in waits):
            raise ValueError("each must be from 0 to 604800, a week")
        return waits
    if name == "rate_limit":
        return limits.tidy(text)
    if name == "rate_limit_storage" and text and not text.startswith(_REDIS):
        raise ValueError("use a URL that begins with redis://, rediss://, valkey:// or valkeys://")
    if kind is int or kind is float:
        number, (least, most) = kind(text), _RANGES.get(name, (0, 2**53))
        if not (least <= number <= most):
            raise ValueError(f"must be from {least} to {most}" if name in _RANGES else "must be zero or more")
        return number
    if name in _CHOICES and text not in _CHOICES[name]:
        raise ValueError(f"use one of {', '.join(_CHOICES[name])}")
    if name == "public_url" and text and not text.startswith(("http://", "https://")):
        raise ValueError("use an address that begins with https:// or http://")
    if name in ("data_dir", "models_dir"):
        return Path(text).expanduser().absolute() if text else None
    return text


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings from `environment` (the process's own by default). Raises `SettingsError`."""
    source = os.environ if environment is None else environment
    known = {f.name for f in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, raw in sorted(source.items()):
        if not variable.startswith(_PREFIX) or variable.startswith(_OUTSIDE):
            continue
        name, text = variable.removeprefix(_PREFIX).lower(), raw
        if name not in known and name.endswith("_file") and name.removesuffix("_file") in known:
            name = name.removesuffix("_file")
            try:
                text = Path(raw).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingsError(f"{variable}: can't read {raw!r}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise SettingsError(f"{variable}: can't read {raw!r}: it is not UTF-8 text") from None
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {_PREFIX}{near[0].upper()}?" if near else ""
            raise SettingsError(f"{variable}: there is no such setting{hint}")
        try:
            values[name] = _parse(name, text)
        except ValueError as error:
            shown = "its value" if _is_secret(name) else repr(text)
            raise SettingsError(f"{variable}: {shown} can't be used: {error}") from None
    if "otlp_endpoint" not in values:  # the name that every OpenTelemetry tool knows
        values["otlp_endpoint"] = source.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if values.get("data_dir", ...) is None:
        del values["data_dir"]  # an empty variable means the default
    return Settings(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What clients of a service read from the environment; both may be empty."""

    base_url: str
    api_key: str


def client(environment: Mapping[str, str] | None = None) -> Client:
    """`PIXELDOJO_BASE_URL` and `PIXELDOJO_API_KEY` (or `…_API_KEY_FILE`). Raises `SettingsError`."""
    source = os.environ if environment is None else environment
    api_key = source.get("PIXELDOJO_API_KEY", "").strip()
    path = source.get("PIXELDOJO_API_KEY_FILE", "")
    if path and not api_key:
        try:
            api_key = Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise SettingsError(f"PIXELDOJO_API_KEY_FILE: can't read {path!r}: {error.strerror}") from None
    return Client(base_url=source.get("PIXELDOJO_BASE_URL", "").strip(), api_key=api_key)


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """(variable, effective value with secrets masked, what it is) for every setting."""
    rows = []
    for f in fields(Settings):
        value = getattr(settings, f.name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str("" if value is None else value)
        rows.append((_PREFIX + f.name.upper(), "••••" if f.metadata["secret"] and text else text, f.metadata["text"]))
    return rows


def child_environment() -> dict[str, str]:
    """The environment of an engine's process: this one's without our settings and what looks like a secret.

    On glibc its threads share two heaps: one for each would keep a third more memory, and saves no time.
    """
    return {"MALLOC_ARENA_MAX": "2"} | {
        name: value
        for name, value in os.environ.items()
        if not _PRIVATE.search(name.upper()) and not _PASSWORD_IN_URL.search(value)
    }
