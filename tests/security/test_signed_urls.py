"""Signed URLs under an attacker's hands: every character changed, signatures moved, paths that climb out."""

import hashlib
import hmac
import itertools
import secrets
import string
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from doors.conftest import API, DAY_MS, Service, fault
from doors.test_api_assets import File
from pixeldojo import clock, errors, ids
from pixeldojo.assets.signing import PREFIX, Signer

OTHERS = string.hexdigits + "gzGZ./_-%&=?+#\0 \n\xe9"


@pytest.fixture(scope="module")
def file(site: Service) -> File:
    return File(site)


def _opens(signer: Signer, url: str) -> bool:
    """Whether the service would send a file for this path and query."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        key = parts.path.removeprefix(PREFIX)
        signer.check(key, expires=query.get("expires", ""), signature=query.get("signature", ""))
    except errors.PixelDojoError:
        return False
    return True


def test_no_single_change_of_any_character_opens_anything() -> None:
    """Each place of the path, the time and the signature: every other character, none, and one more."""
    signer = Signer(ids.new_secret())
    key = f"{ids.new('job')}/0.png"
    url = signer.url_path(key, expires_ms=clock.now_ms() + DAY_MS)
    assert _opens(signer, url)
    tried = 0
    for place in range(len(PREFIX), len(url)):
        for other in OTHERS:
            for changed in (url[:place] + other + url[place + 1 :], url[:place] + other + url[place:]):
                if changed.partition("#")[0] == url or changed == url:
                    continue  # a fragment is not sent
                if parse_qs(urlsplit(changed).query) == parse_qs(urlsplit(url).query) and "?" in changed:
                    same = urlsplit(changed).path == urlsplit(url).path
                    assert not same or _opens(signer, changed)  # an ampersand more is the same URL
                    if same:
                        continue
                assert not _opens(signer, changed), changed
                tried += 1
        assert not _opens(signer, url[:place] + url[place + 1 :])
    assert tried > 5_000


def test_through_the_api_too(file: File) -> None:
    url = urlsplit(file.url)
    target = f"{url.path}?{url.query}"
    with file.service.wire() as wire:
        assert wire.ask(f"GET {target} HTTP/1.1").content == file.data
        for place in range(len(PREFIX), len(target)):
            changed = target[:place] + ("0" if target[place] != "0" else "1") + target[place + 1 :]
            answer = wire.ask(f"GET {changed} HTTP/1.1")
            assert answer.status_code == 404, changed
            assert file.query["signature"] not in answer.text


def test_only_the_exact_spelling_of_a_time_counts(file: File) -> None:
    expires = file.query["expires"]
    arabic, wide = ("".join(chr(zero + int(digit)) for digit in expires) for zero in (0x660, 0xFF10))
    framed = [f"0{expires}", f"+{expires}", f"-{expires}", f" {expires}", f"{expires} ", f"{expires}\n", f"{expires}.0"]
    odd = [f"{expires}e0", f"{expires[0]}_{expires[1:]}", hex(int(expires)), "9" * 15, "9" * 16, "0", ""]
    for other in (*framed, *odd, arabic, wide):
        fault(file.at(expires=other), 404, "not_found")


def test_one_signature_opens_one_file_for_one_time(site: Service) -> None:
    mine, theirs = File(site), File(site)
    both = site.person().done(num_outputs=2)["output"]["images"]
    queries = [urlsplit(url).query for url in (mine.url, theirs.url, *both)]
    paths = [urlsplit(url).path for url in (mine.url, theirs.url, *both)]
    for (number, path), (other, query) in itertools.product(enumerate(paths), enumerate(queries)):
        answer = site.ask("GET", f"{path}?{query}")
        assert answer.status_code == (200 if number == other else 404)
    # of several in one query, whichever is read, all must be right
    signature = mine.query["signature"]
    for more in (f"signature={signature}&signature=x", f"signature=x&signature={signature}"):
        got = site.ask("GET", f"{paths[0]}?expires={mine.query['expires']}&{more}")
        assert got.status_code in (200, 404)
        assert site.ask("GET", f"{paths[1]}?expires={mine.query['expires']}&{more}").status_code == 404
    for spelled in ("Signature", "SIGNATURE", "sig", "token"):
        assert site.ask("GET", f"{paths[0]}?expires={mine.query['expires']}&{spelled}={signature}").status_code == 404


def test_an_expired_url_tells_no_more_than_that(site: Service, later: Callable[[int], None]) -> None:
    file = File(site)
    later(DAY_MS + 1000)
    fault(file.get(), 410, "expired")
    fault(file.at(expires=str(int(file.query["expires"]) + DAY_MS)), 404, "not_found")
    fault(file.at(signature="0" * 40), 404, "not_found")


def test_a_url_is_a_capability_until_its_time_is_over(site: Service) -> None:
    """By design: whoever was given the URL may download, without a key and with anybody's."""
    file, stranger = File(site), site.person()
    assert stranger.ask("GET", file.url).content == file.data
    assert file.get(authorization="Bearer pd_wrong").content == file.data


def test_the_comparison_alone_decides_and_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is compared by `hmac.compare_digest` and by nothing else."""
    signer, seen = Signer("secret"), []
    good = dict(parse_qs(urlsplit(signer.url_path("job_1/0.png", expires_ms=clock.now_ms() + 60_000)).query))
    expires, signature = good["expires"][0], good["signature"][0]

    def compare(verdict: bool) -> Callable[[bytes, bytes], bool]:
        def compare_digest(a: bytes, b: bytes) -> bool:
            seen.append((a, b))
            return verdict

        return compare_digest

    monkeypatch.setattr(hmac, "compare_digest", compare(True))
    for wrong in ("", "0" * 40, signature[:-1]):
        signer.check("job_1/0.png", expires=expires, signature=wrong)
    monkeypatch.setattr(hmac, "compare_digest", compare(False))
    for any_one in (signature, "", "x"):
        with pytest.raises(errors.NotFound):
            signer.check("job_1/0.png", expires=expires, signature=any_one)
    assert len(seen) == 6, "one that is of another length is compared too"


def test_a_signature_can_t_be_made_longer_than_what_was_signed(file: File) -> None:
    """SHA-256 alone could be extended; HMAC, cut to 160 bits, can't."""
    secret, key = b"unknown to the attacker", f"{file.job['jobId']}/0.png"
    text = f"{key}\n{file.query['expires']}".encode()
    naive = hashlib.sha256(secret + text).hexdigest()[:40]
    assert naive != Signer(secret.decode())._signature(key, int(file.query["expires"]))
    for suffix in ("%80", "%80" + "%00" * 20, "%0a9999999999", "%0A9999999999"):
        fault(file.at(f"{file.path}{suffix}"), 404, "not_found")


def test_a_changed_url_leads_nowhere(file: File) -> None:
    signature, expires = file.query["signature"], file.query["expires"]
    assert file.at().status_code == 200
    other = File(file.service)
    tampered = [
        file.at(signature=signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        file.at(signature=signature[:-1]),
        file.at(signature=signature + "0"),
        file.at(signature=signature.upper() if signature.upper() != signature else "x"),
        file.at(signature=""),
        file.at(signature="é" * 40),
        file.at(signature="\ud7ff\0"),
        file.at(expires=str(int(expires) + 1)),
        file.at(expires=str(int(expires) - 1)),
        file.at(expires=""),
        file.at(expires="0"),
        file.at(expires="-1"),
        file.at(expires="9" * 5000),
        file.at(expires=f"{expires}.0"),
        file.at(expires="٣"),
        file.service.ask("GET", file.path),
        file.service.ask("GET", f"{file.path}?expires={expires}"),
        file.service.ask("GET", f"{file.path}?signature={signature}"),
        file.at(other.path),
        file.at(file.path.replace("0.png", "1.png")),
        file.at(file.path.replace("0.png", "0.PNG")),
        file.at(file.path.replace("0.png", "0.webp")),
        file.at(file.path.replace("0.png", "%30.png") + "x"),
    ]
    for number, answer in enumerate(tampered):
        assert answer.status_code == 404, (number, answer.text)
        fault(answer, 404, "not_found")
        assert signature not in answer.text


def test_paths_lead_nowhere(file: File) -> None:
    job_id = file.job["jobId"]
    query = "&".join(f"{name}={value}" for name, value in file.query.items())
    paths = (
        "..%2f..%2fpixeldojo.db", "%2e%2e/pixeldojo.db", "..%2fpixeldojo.db/0.png", f"{job_id}/..%2f..%2fpixeldojo.db",
        f"{job_id}/%2e%2e%2f%2e%2e%2fpixeldojo.db", "%2fetc%2fpasswd", f"{job_id}/..", f"{job_id}/%00",
        f"{job_id}/0.png%00", f"{job_id}%00/0.png", f"{job_id}/..%5c0.png", f"{job_id}/", f".%2f{job_id}/0.png",
        f"{job_id}/0.png%2f..%2f0.png", f"{job_id}/../{job_id}/0.png", f"{job_id}/./0.png", f"{job_id}/%ff",
    )  # fmt: skip
    with file.service.wire() as wire:  # as they stand, without a client that tidies them up
        for path in paths:
            fault(wire.ask(f"GET {API}/assets/{path}?{query} HTTP/1.1"), 404, "not_found")


@pytest.mark.parametrize(
    "name", ["../../pixeldojo.db", "..", "/etc/passwd", "0.png/../../../pixeldojo.db", "x", "0.exe"]
)
def test_even_a_right_signature_opens_nothing_but_results(file: File, name: str) -> None:
    job_id = file.job["jobId"]
    expires = file.query["expires"]
    signer = file.service.house.signer
    path = signer.url_path(f"{job_id}/{name}", expires_ms=int(expires) * 1000)
    signed = parse_qs(urlsplit(path).query)["signature"][0]
    quoted = name.replace("/", "%2f")
    answer = file.at(f"{API}/assets/{job_id}/{quoted}", signature=signed)
    assert answer.status_code in (404, 410)
    assert b"SQLite" not in answer.content


def test_a_signature_made_with_another_secret(file: File) -> None:
    expires = file.query["expires"]
    for secret in (b"", b"secret", file.job["jobId"].encode()):
        text = f"{file.job['jobId']}/0.png\n{expires}".encode()
        forged = hmac.new(secret, text, hashlib.sha256).hexdigest()[:40]
        fault(file.at(signature=forged), 404, "not_found")


CLIMBS = (
    "../{}", "..%2f{}", "%2e%2e/{}", "%2e%2e%2f{}", "..%5c{}", "..\\{}", "%2e%2e%5c{}", "..%252f{}", "....//{}",
    "%252e%252e%252f{}", "..%c0%af{}", "..%ef%bc%8f{}", "..%e2%88%95{}", "%e3%80%82%e3%80%82/{}", "..;/{}", "..%00/{}",
    "%00../{}", "/{}", "//{}", "%2f{}", "%2f%2f{}", "./{}", ".%2f{}", "~/{}", "file:///{}", "C:%5c{}", "..%0d%0a/{}",
    "%uff0e%uff0e/{}",
)  # fmt: skip
GOALS = ("pixeldojo.db", "cli-key", "service.json", "etc/passwd", "proc/self/environ", "..%2f..%2fetc%2fpasswd")


def test_nothing_that_is_served_lets_a_path_climb_out(file: File) -> None:
    """Wherever a path has a part of the caller's: files, jobs, keys, models, and whatever other pages there are."""
    inner = vars(file.service.app)["_app"]
    bases = {route.path.partition("{")[0] for route in inner.routes if "{" in route.path} | {"/", f"{API}/"}
    query = "&".join(f"{name}={value}" for name, value in file.query.items())
    private = (b"SQLite format", b"root:x:", b"PATH=", file.person.key.encode())
    with file.service.wire() as wire:
        for base, climb in itertools.product(sorted(bases), CLIMBS):
            path = f"{base}{climb.format(GOALS[0])}?{query}".replace("\\", "%5c")
            answer = wire.ask(f"GET {path} HTTP/1.1\r\nauthorization: Bearer {file.person.key}")
            assert answer.status_code in (401, 404), (path, answer.text[:200])
            assert not any(each in answer.content for each in private), path
        for climb, goal in itertools.product(CLIMBS, GOALS):
            answer = wire.ask(f"GET {PREFIX}{climb.format(goal)}?{query} HTTP/1.1".replace("\\", "%5c"))
            fault(answer, 404, "not_found")


def test_whatever_is_signed_stays_in_the_folder_of_results(file: File) -> None:
    """The last line: even with the secret in an attacker's hands, only results are opened."""
    signer, expires_ms = file.service.house.signer, int(file.query["expires"]) * 1000
    folder = file.service.house.settings.data_dir / "assets" / file.job["jobId"]
    marker = secrets.token_hex(16).encode()
    (folder.parent.parent / "0.png").write_bytes(marker)
    for key in ("../0.png", "../../0.png", f"{file.job['jobId']}/../../0.png", "..%2f0.png", "/0.png", "%2e%2e/0.png"):
        query = urlsplit(signer.url_path(key, expires_ms=expires_ms)).query
        for path in (key, quote(key, safe=""), quote(key)):
            answer = file.service.ask("GET", f"{PREFIX}{path}?{query}")
            assert answer.status_code in (401, 404, 410), path
            assert marker not in answer.content
