"""The service that both SDKs are run against, in a process of its own."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import live


@dataclass(frozen=True, slots=True)
class Running:
    """A service of its own process, with the key of an account that has credits, and two of one that has none:
    `owner_key` may manage keys and secrets."""

    address: str
    key: str
    poor_key: str
    owner_key: str
    webhook_secret: str
    process: "subprocess.Popen[str]"

    @property
    def env(self) -> dict[str, str]:
        return {
            "PIXELDOJO_BASE_URL": self.address,
            "PIXELDOJO_API_KEY": self.key,
            "POOR_KEY": self.poor_key,
            "OWNER_KEY": self.owner_key,
            "WEBHOOK_SECRET": self.webhook_secret,
        }


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Running]:
    env = live.service_environment(folder, PIXELDOJO_TESTCARD="1")

    def cli(*arguments: str) -> str:
        return live.command(sys.executable, "-m", "pixeldojo", *arguments, at=folder, env=env)

    cli("credits", "grant", "1000")
    cli("accounts", "create", "poor")
    poor_key = json.loads(cli("keys", "create", "--account", "poor", "--json"))["key"]
    scopes = "account:read,account:write,jobs:read,jobs:write"
    owner_key = json.loads(cli("keys", "create", "--account", "poor", "--scopes", scopes, "--json"))["key"]
    secret = cli("webhooks", "secret").strip()
    with live.launched(folder, env) as (told, process):
        yield Running(told["address"], told["key"], poor_key, owner_key, secret, process)
