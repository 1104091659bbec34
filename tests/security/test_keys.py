"""Guessing keys: what is stored, how a key is looked up, and every way to send something that is nearly one."""

import ast
import base64
import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

import pixeldojo
from doors.conftest import API, Person, Service, fault
from pixeldojo import errors, ids
from pixeldojo.accounts import service as accounts

SOURCE = Path(pixeldojo.__file__).parent
ACCOUNT = f"{API}/account"


@pytest.fixture(scope="module")
def ana(site: Service) -> Person:
    return site.person()


class Spy:
    """A transaction that knows no key, and notes what it is asked."""

    skip_locked = ""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def one(self, sql: str, *params: Any) -> None:
        self.asked.append((sql, params))

    all = run = wake = one


@pytest.mark.parametrize("look_up", [accounts.authenticate, accounts.counted_as])
def test_a_key_is_looked_up_by_its_hash_alone(look_up: Any) -> None:
    """Whatever an index look-up's time may tell, it tells of a SHA-256 that nobody can steer; there is no comparison
    of the key itself that could take longer the more of it is right."""
    key, spy = ids.new_key(), Spy()
    with contextlib.suppress(errors.Unauthorized):
        assert look_up(spy, f"Bearer {key}") is None
    ((sql, params),) = spy.asked
    assert params == (hashlib.sha256(key.encode()).hexdigest(),)
    assert sql.endswith("WHERE hash = ?")


def test_no_code_compares_a_secret_itself() -> None:
    """Signatures, hashes, secrets and tokens are compared by `hmac.compare_digest`, or by an index over hashes."""
    word = re.compile(r"(\w+_)?(signature|secret|token|hash|digest|hmac|password)(_\w+)?", re.IGNORECASE)
    known = {"first[0] != request_hash"}  # of two requests of one account
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                sides = [ast.unparse(side).rpartition(".")[2] for side in (node.left, *node.comparators)]
                if any(word.fullmatch(side) for side in sides):
                    found.add(ast.unparse(node))
    assert found <= known, found - known


def test_neither_keys_nor_their_halves_are_stored(site: Service) -> None:
    person = site.person(scopes=["account:read", "account:write", "jobs:read", "jobs:write"])
    made = person.ask("POST", f"{ACCOUNT}/keys", json={"name": "made"}).json()["key"]
    person.done()
    folder = site.house.settings.data_dir
    stored = b"".join(path.read_bytes() for path in folder.glob("pixeldojo.db*"))
    for key in (person.key, made):
        assert hashlib.sha256(key.encode()).hexdigest().encode() in stored
        assert key[: ids.KEY_PREFIX_CHARS].encode() in stored
        assert key[ids.KEY_PREFIX_CHARS :].encode() not in stored
        assert key[ids.KEY_PREFIX_CHARS : ids.KEY_PREFIX_CHARS + 12].encode() not in stored
        assert base64.b64encode(key.encode()) not in stored


def test_a_key_can_t_be_guessed_from_others() -> None:
    keys = {ids.new_key() for _ in range(1000)}
    assert len({key[ids.KEY_PREFIX_CHARS :] for key in keys}) == 1000
    assert all(re.fullmatch(r"pd_[\w-]{32}", key) for key in keys)  # 192 bits, 48 of which are in the visible prefix


def _near(key: str) -> dict[str, str]:
    return {
        "each shorter one": key[:-1], "the visible prefix": key[:11], "one more": key + "A", "twice": key + key,
        "padded": key + "=", "a null character": key + "\x00", "a null character and more": key + "\x00A",
        "a null character within": key[:20] + "\x00" + key[20:], "a space within": key[:20] + " " + key[20:],
        "no-break space within": key[:20] + "\xa0" + key[20:], "a soft hyphen": key[:20] + "\xad" + key[20:],
        "a tab within": key[:20] + "\t" + key[20:], "another case": key.swapcase(), "PD_": "PD_" + key[3:],
        "no prefix": key[3:], "quoted": f'"{key}"', "bracketed": f"<{key}>", "a wildcard": key[:11] + "%",
        "a pattern": key[:11] + "*", "SQL": f"{key}' OR '1'='1", "SQL alone": "' OR 1=1 --", "a list": f"{key},{key}",
        "its hash": hashlib.sha256(key.encode()).hexdigest(), "in base 64": base64.b64encode(key.encode()).decode(),
        "percent-encoded": "".join(f"%{ord(c):02x}" for c in key), "extended": key + "\x80" + "\x00" * 30,
        "a parameter": f"{key}; charset=utf-8", "named": f"token={key}", "true": "true", "zero": "0", "empty": "",
        "long": key * 300,
    }  # fmt: skip


def test_what_is_nearly_a_key(ana: Person) -> None:
    for kind, near in _near(ana.key).items():
        for scheme in ("Bearer ", "bearer "):
            sent = {b"authorization": (scheme + near).encode("latin-1")}
            answer = ana.service.ask("GET", ACCOUNT, headers=sent)
            fault(answer, 401, "unauthorized")
            assert ana.key[11:] not in answer.text, kind
    for place in range(len(ana.key)):
        changed = ana.key[:place] + ("A" if ana.key[place] != "A" else "B") + ana.key[place + 1 :]
        fault(ana.service.ask("GET", ACCOUNT, headers={"authorization": f"Bearer {changed}"}), 401, "unauthorized")


def test_a_key_counts_in_its_header_alone(ana: Person) -> None:
    key, ask = ana.key, ana.service.ask
    basic = base64.b64encode(f":{key}".encode()).decode()
    for name in ("key", "api_key", "apikey", "access_token", "token", "authorization", "Authorization"):
        for method in ("GET", "DELETE"):
            url = f"{API}/jobs" if method == "GET" else f"{API}/jobs/job_x"
            fault(ask(method, f"{url}?{name}=Bearer%20{key}&{name}={key}"), 401, "unauthorized")
    for headers in (
        {"x-api-key": key}, {"api-key": key}, {"cookie": f"key={key}; authorization=Bearer {key}"}, {"from": key},
        {"proxy-authorization": f"Bearer {key}"}, {"x-forwarded-authorization": f"Bearer {key}"},
        {"authorization": f"Basic {basic}"}, {"authorization": f"Token {key}"}, {"authorization": f"Digest {key}"},
        {"authorization": key}, {"authorization": f"Bearer\t{key}"}, {"authorization": f"Bearer:{key}"},
        {"authorization": f" {key}"}, {"authorization_": f"Bearer {key}"}, {"x-authorization": f"Bearer {key}"},
        {"referer": f"https://x/?key={key}"}, {"sec-websocket-protocol": f"bearer, {key}"},
    ):  # fmt: skip
        fault(ask("GET", ACCOUNT, headers=headers), 401, "unauthorized")
    for body in ({"key": key}, {"authorization": f"Bearer {key}"}, {"prompt": "x", "api_key": key}):
        fault(ask("POST", f"{API}/models/testcard/run", json=body), 401, "unauthorized")
    fault(ask("GET", f"{API}/jobs", headers=[("authorization", "")]), 401, "unauthorized")


def test_of_several_keys_none_counts(ana: Person) -> None:
    """So nobody checks one and serves the other, and one request is one guess at most."""
    other = ana.service.person()
    good, bad = f"Bearer {ana.key}", f"Bearer {ids.new_key()}"
    pairs = ((good, bad), (bad, good), (good, good), (good, f"Bearer {other.key}"), ("", good), (good, ""))
    with ana.service.wire() as wire:
        for pair in pairs:
            sent = [("authorization", value) for value in pair]
            fault(ana.service.ask("GET", ACCOUNT, headers=sent), 401, "unauthorized")
            lines = "\r\n".join(f"Authorization: {value}" for value in pair)
            fault(wire.ask(f"GET {ACCOUNT} HTTP/1.1\r\n{lines}"), 401, "unauthorized")
        folded = f"GET {ACCOUNT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer\r\n {ana.key}\r\n\r\n"
        assert wire.send(folded.encode()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 "))
    fault(ana.service.ask("GET", ACCOUNT, headers={"authorization": f"{good}, {bad}"}), 401, "unauthorized")
    for pair in pairs:
        sent = [("authorization", value) for value in pair]
        assert ana.service.ask("POST", "/mcp", headers=sent, json={}).status_code == 401


def test_an_answer_to_a_wrong_key_tells_nothing_of_the_right_ones(ana: Person) -> None:
    """What is unknown is unknown, however near it comes; only who has the whole key learns that it was revoked."""
    gone = ana.another_key()
    ana.service.write(accounts.revoke_key, account_id=ana.account_id, key=gone.key_id)
    answers = set()
    for key in (gone.key[:-1], gone.key[:11], ana.key[:-1], "pd_x", "x", ids.new_key()):
        refused = ana.service.ask("GET", ACCOUNT, headers={"authorization": f"Bearer {key}"})
        answers.add(fault(refused, 401, "unauthorized")["message"])
    assert answers == {"Invalid API key."}
    assert "revoked" in gone.ask("GET", ACCOUNT).json()["error"]["message"]
