"""Who gets at what of another account: a matrix made from the app's own routes, and every id that can be slipped in.

The victim's jobs, keys, secret and files are real and stand still: nothing works on them, so whatever changes in any
table or folder was changed by the attacker.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from doors.conftest import API, RUN, Person, Service, _settings, fault, faults, serving
from doors.test_api_account import NEEDS, PUBLIC, body_for
from doors.test_api_inputs import PNG, _uri
from pixeldojo import clock, ids
from pixeldojo.accounts import service as accounts
from pixeldojo.accounts.service import SCOPES
from pixeldojo.webhooks import service as webhooks

MOST = list(SCOPES[:-1])
ORDER: dict[str, Any] = {"prompt": "a private prompt", "metadata": {"case": "private-case"}}


@dataclasses.dataclass
class Victim:
    """Ana's account."""

    service: Service
    person: Person
    spare: Person
    ids: dict[str, str]
    private: list[str]  # what nobody else may read

    def url(self, path: str) -> str:
        names = {"api_id": "testcard", "name": "0.png", "page": "testcard"} | self.ids
        return path.format_map({name: names.get(name, "x") for name in names | self.ids})

    def state(self) -> dict[str, list[str]]:
        """Every row of every table in which something of hers stands, and her files."""
        mine = [*self.ids.values(), self.person.key_id]

        def rows(tx: Any) -> dict[str, list[str]]:
            tables = [row[0] for row in tx.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
            texts = {table: [repr(tuple(row)) for row in tx.all(f"SELECT * FROM {table}")] for table in tables}
            return {
                table: sorted(t for t in found if any(each in t for each in mine)) for table, found in texts.items()
            }

        folder = self.service.house.settings.data_dir / "assets"
        files = sorted(f"{path.relative_to(folder)} {path.stat().st_size}" for path in folder.rglob("*.*"))
        found: dict[str, list[str]] = self.service.do(self.service.house.db.scan(rows))
        return found | {"files": files}


def _open_account(service: Service) -> tuple[Person, dict[str, str]]:
    """An account with a job of each kind, made by the worker."""
    ana = service.person(scopes=MOST)
    hook = "https://ana.invalid/private-hook?token=private-token"
    done = ana.done(**ORDER, image_url=_uri(PNG), webhook_url=hook, num_outputs=2)
    ana.done("!refuse")
    return ana, {"job_id": done["jobId"], "asset": done["output"]["image"], "account_id": ana.account_id}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder: Path = tmp_path_factory.mktemp("victim")
    with serving(_settings(folder)) as working:
        before, known = _open_account(working)
    with serving(_settings(folder), works=False) as service:
        ana = Person(service, account_id=before.account_id, key_id=before.key_id, key=before.key)
        spare = ana.another_key(scopes=MOST, cap_milli=5000)
        known["key_id"] = spare.key_id
        known["pending"] = ana.run(**ORDER, key="order-1", webhook_url="https://ana.invalid/").json()["jobId"]
        secret = service.write(webhooks.valid_secrets, account_id=ana.account_id)[0][0]
        entries = ana.ask("GET", f"{API}/account/ledger").json()["entries"]
        known["entry"] = entries[0]["id"]
        private = [ana.key[11:], spare.key[11:], secret[6:], "private", *(each["id"] for each in entries)]
        yield Victim(service, ana, spare, known, private)


def _routes(service: Service) -> list[tuple[str, str, str]]:
    """(method, path, the scope it needs), from the app itself."""
    found = []
    for route in vars(service.app)["_app"].routes:
        path = route.path.replace(":str", "")
        methods = sorted(route.methods - {"OPTIONS"})
        found += [(method, path, NEEDS.get(f"{method} {path}", "unknown")) for method in methods]
    return found


def _callers(victim: Victim) -> dict[str, Callable[[str], str | None]]:
    """Kinds of callers: the scope a route needs in, a key out."""
    service, ana = victim.service, victim.person

    def revoked(_: str) -> str:
        gone = ana.another_key(scopes=list(SCOPES))
        service.write(accounts.revoke_key, account_id=ana.account_id, key=gone.key_id)
        return gone.key

    def expired(_: str) -> str:
        soon = ana.another_key(scopes=list(SCOPES), expires_ms=clock.now_ms() + 60_000)
        sql = "UPDATE keys SET expires_ms = ? WHERE id = ?"
        service.write(lambda tx: tx.run(sql, clock.now_ms() - 1, soon.key_id))
        return soon.key

    def poor(needs: str) -> str:
        return ana.another_key(scopes=[scope for scope in SCOPES if scope not in (needs, "admin")]).key

    gone, late = revoked(""), expired("")
    poors = {needs: poor(needs) for needs in SCOPES}
    stranger, admin = service.person(scopes=MOST).key, service.person(scopes=["admin"]).key
    return {
        "nobody": lambda needs: None,
        "a guess": lambda needs: ids.new_key(),
        "a revoked key": lambda needs: gone,
        "an expired key": lambda needs: late,
        "a key without the scope": lambda needs: poors[needs],
        "another account": lambda needs: stranger,
        "an admin of another account": lambda needs: admin,
    }


def _ask(victim: Victim, method: str, path: str, key: str | None, **more: Any) -> httpx2.Response:
    if method in ("POST", "PATCH", "PUT"):
        more.setdefault("json", body_for(path))
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return victim.service.ask(method, victim.url(path), headers=headers | more.pop("headers", {}), **more)


def test_every_route_and_every_kind_of_caller(victim: Victim) -> None:
    callers = _callers(victim)
    before, asked = victim.state(), 0
    for (method, path, needs), (kind, key) in itertools.product(_routes(victim.service), callers.items()):
        if needs == PUBLIC:
            continue
        assert needs in SCOPES, f"{method} {path} is in no table of scopes"
        answer, what = _ask(victim, method, path, key(needs)), (kind, method, path)
        asked += 1
        if kind == "an admin of another account" and needs == "admin":
            continue  # looks after every account: that is what the scope is for
        if "another account" not in kind or needs == "admin":
            error = fault(answer, 401, "unauthorized")
            assert victim.ids["job_id"] not in error["message"], what
        elif "{job_id}" in path or "{key_id}" in path:
            fault(answer, 404, "not_found")
        else:
            assert answer.status_code < 300, (what, answer.text)
            hers = [victim.ids[name] for name in ("job_id", "key_id", "account_id", "pending")]
            assert not [each for each in hers if each in answer.text], what
        assert not [each for each in victim.private if each in answer.text], what
        assert victim.state() == before or needs == "admin", what
    assert asked > 150


def test_public_routes_show_nothing_of_any_account(victim: Victim) -> None:
    public = [(method, path) for method, path, needs in _routes(victim.service) if needs == PUBLIC]
    for method, path in public:
        for key in (None, victim.person.key):
            answer = _ask(victim, method, path, key)
            shown = [each for each in (*victim.private, victim.person.account_id) if each in answer.text]
            assert not shown, (method, path)


def test_ids_of_another_account_in_queries_and_bodies(victim: Victim) -> None:
    eve, known = victim.service.person(scopes=MOST), victim.ids
    before = victim.state()
    empty = (
        f"jobs?key={known['key_id']}", f"jobs?key={victim.person.key_id}", "jobs?metadata.case=private-case",
        f"jobs?cursor={known['job_id']}&limit=100", "jobs?status=completed", "jobs?createdAfter=2020-01-01T00:00:00Z",
        f"jobs?metadata.case=' OR 1=1 --&key={victim.person.key_id}", "jobs?model=testcard",
    )  # fmt: skip
    for query in empty:
        answer = eve.ask("GET", f"{API}/{query}")
        assert (answer.status_code, answer.json()["jobs"]) == (200, []), query
    for query in (
        f"account/ledger?cursor={known['entry']}", f"account/keys?cursor={known['key_id']}",
        "account/usage?groupBy=key",
        f"account/usage?groupBy=key&key={known['key_id']}", f"account?account={known['account_id']}",
        f"account/ledger?account_id={known['account_id']}",
    ):  # fmt: skip
        answer = eve.ask("GET", f"{API}/{query}")
        assert answer.status_code == 200, answer.text
        assert not [each for each in (*known.values(), *victim.private) if each in answer.text], query
    for more in (
        {"accountId": known["account_id"]},
        {"budgetId": known["key_id"]},
        {"account": victim.person.account_id},
    ):
        assert set(faults(eve.ask("POST", f"{API}/account/keys", json={"name": "x"} | more))) == set(more)
    for named in (victim.person.key[:11], victim.spare.key[:11], f"{known['key_id']}%00", "%25", "key_%"):
        fault(eve.ask("DELETE", f"{API}/account/keys/{named}"), 404, "not_found")
        fault(eve.ask("POST", f"{API}/account/keys/{named}/rotate", json={}), 404, "not_found")
    events = eve.ask("GET", f"{API}/jobs/{known['pending']}/events", headers={"last-event-id": "pending-0-0"})
    fault(events, 404, "not_found")
    assert victim.state() == before


def test_an_idempotency_key_belongs_to_its_account(victim: Victim) -> None:
    eve, before = victim.service.person(), victim.state()
    body = json.dumps(ORDER | {"webhook_url": "https://ana.invalid/"}).encode()
    answer = eve.ask("POST", RUN, content=body, headers={"idempotency-key": "order-1"})
    assert answer.status_code == 202
    assert answer.json()["jobId"] != victim.ids["pending"]
    assert "idempotent-replayed" not in answer.headers
    assert eve.entries()[-1] == ("charge", -1000)
    other = eve.run("something else", key="order-1")
    assert victim.ids["pending"] not in json.dumps(faults(other))
    again = victim.person.run(**ORDER, key="order-1", webhook_url="https://ana.invalid/").json()
    assert again["jobId"] == victim.ids["pending"]
    assert victim.state() == before


def test_keys_of_one_account_with_different_models(victim: Victim) -> None:
    """A key that may run one model only can't use the other, whatever the request says."""
    narrow = victim.person.another_key(models=["none"])
    before = victim.person.entries()
    for more in ({}, {"headers": {"x-model": "testcard"}}, {"params": {"model": "none"}}):
        answer = victim.service.ask("POST", RUN, json={"prompt": "x"}, **{"headers": {}} | more)
        fault(answer, 401, "unauthorized")
        refused = narrow.ask("POST", RUN, json={"prompt": "x"}, **more)
        assert set(faults(refused)) == {"model"}
    assert victim.person.entries() == before
