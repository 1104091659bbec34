"""The TypeScript SDK as its users get it: packed, installed into an empty project, and run against a real service.

Node.js and npm must be there; without them the tests are skipped, but in CI they fail. Deno, Bun and Node.js 18 come
from their npm packages; where those can't be installed, their tests are skipped with the reason. They are kept in
`build/sdk-runtimes`, because they are large.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import Running, serving

import live

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = ROOT / "sdks/typescript"
RUNTIMES = ROOT / "build/sdk-runtimes"
OLD_NODE = f"node-linux-{ {'x86_64': 'x64', 'aarch64': 'arm64'}.get(platform.machine(), 'unknown') }"
PACKAGES = {"deno": "deno@2.9.6", "bun": "bun@1.4.5", "node18": f"{OLD_NODE}@18.20.8"}
BROWSER_LIB = "es2022,dom,dom.iterable,dom.asynciterable"
PROGRAMS = {"deno": "@deno/*/deno", "bun": "@oven/*/bin/bun", "node18": f"{OLD_NODE}/bin/node"}


def command(*arguments: str | Path, at: Path, env: dict[str, str] | None = None, timeout_s: float = 60) -> str:
    return live.command(*arguments, at=at, env=live.clean_environment() | (env or {}), timeout_s=timeout_s)


def npm(*arguments: str | Path, at: Path) -> str:
    return command("npm", *arguments, "--prefer-offline", "--no-audit", "--no-fund", at=at, timeout_s=180)


@pytest.fixture(scope="session", autouse=True)
def node() -> None:
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        reason = f"{' and '.join(missing)} can't be found"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the SDK's folder, with its development dependencies, built."""
    home = tmp_path_factory.mktemp("sdks")
    made = shutil.ignore_patterns("node_modules", "dist", "*.tgz")
    shutil.copytree(SOURCES, home / "typescript", ignore=made)
    shutil.copytree(ROOT / "sdks/fixtures", home / "fixtures")
    npm("ci", at=home / "typescript")
    npm("run", "build", at=home / "typescript")
    return home / "typescript"


@pytest.fixture(scope="module")
def tarball(sources: Path) -> Path:
    packed = json.loads(npm("pack", "--json", "--ignore-scripts", at=sources))
    [one] = packed if isinstance(packed, list) else packed.values()
    return sources / str(one["filename"])


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project into which the package was installed, and Node's types."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"name": "fresh", "version": "1.0.0", "private": true}')
    npm("install", "--ignore-scripts", tarball, "@types/node@20", at=folder)
    shutil.copy(HERE / "live.mjs", folder)
    call = "live(sdk, { folder: process.argv.at(-1) }).then((missing) => console.log('missing:', missing.join()))"
    fail = ".catch((error) => { console.error(error); process.exit(1); })"
    (folder / "main.mjs").write_text(
        'import * as sdk from "@pixeldojo/sdk";\nimport process from "node:process";\n'
        f'import {{ live }} from "./live.mjs";\n{call}{fail};\n'
    )
    (folder / "main.cjs").write_text(
        f'const sdk = require("@pixeldojo/sdk");\nimport("./live.mjs").then(({{ live }}) => {call}){fail};\n'
    )
    return folder


def tsc(sources: Path, project: Path, *arguments: str) -> str:
    program = sources / "node_modules/typescript/bin/tsc"
    return command("node", program, *arguments, at=project)


def runtime(name: str) -> Path:
    """The program of a runtime other than the Node.js that is there. Skips the test where it can't be had."""

    def found() -> Path | None:
        return next(iter((RUNTIMES / PACKAGES[name] / "node_modules").glob(PROGRAMS[name])), None)

    if program := found():
        return program
    part = RUNTIMES / f"{PACKAGES[name]}.{os.getpid()}"
    part.mkdir(parents=True)
    try:
        (part / "package.json").write_text("{}")
        npm("install", "--ignore-scripts", "--no-save", PACKAGES[name], at=part)
        with contextlib.suppress(OSError):  # another run was quicker
            part.rename(RUNTIMES / PACKAGES[name])
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        pytest.skip(f"{PACKAGES[name]} can't be installed: {str(fault)[-300:]}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if program := found():
        return program
    return pytest.skip(f"{PACKAGES[name]} has no program for this machine")


def test_units(sources: Path) -> None:
    tests = sorted(str(path.relative_to(sources)) for path in (sources / "test").glob("*.test.mjs"))
    assert all(name in json.loads((sources / "package.json").read_text())["scripts"]["test"] for name in tests)
    out = command("node", "--test", "--test-reporter=tap", *tests, at=sources, timeout_s=90)
    assert re.search(r"^# fail 0$", out, re.M), out
    assert int(re.search(r"^# pass (\d+)$", out, re.M)[1]) > 150  # type: ignore[index]


def test_what_is_packed(tarball: Path) -> None:
    names = set(command("tar", "-tzf", tarball, at=tarball.parent).split())
    assert {f"package/{name}" for name in ("package.json", "README.md", "LICENSE", "scripts/generate.mjs")} | {
        f"package/dist/{build}/index{end}" for build in ("esm", "cjs") for end in (".js", ".d.ts")
    } <= names
    assert not [name for name in names if re.search(r"node_modules|/test/|\.npmrc|/src/", name)]


@pytest.mark.parametrize(
    "options",
    [
        ["--module", "nodenext", "--types", "node", "--lib", "es2022"],
        ["--module", "esnext", "--moduleResolution", "bundler", "--types", "", "--lib", BROWSER_LIB],
    ],
    ids=["node", "browser"],
)
def test_types(sources: Path, project: Path, options: list[str]) -> None:
    shutil.copy(HERE / "types.mts", project)
    tsc(sources, project, "--noEmit", "--strict", "--target", "es2022", *options, "types.mts")


def test_types_of_the_commonjs_build(sources: Path, project: Path) -> None:
    (project / "types.cts").write_text(
        'import sdk = require("@pixeldojo/sdk");\nconst pd: sdk.PixelDojoClient = new sdk.PixelDojoClient();\n'
        "export const models: Promise<sdk.ModelList> = pd.listModels();\n"
    )
    options = ["--module", "nodenext", "--types", "", "--lib", BROWSER_LIB]
    tsc(sources, project, "--noEmit", "--strict", "--target", "es2022", *options, "types.cts")


@pytest.mark.parametrize("kind", ["esm", "cjs", "node18", "deno", "bun"])
def test_live(kind: str, project: Path, running: Running) -> None:
    start: dict[str, Callable[[], list[str | Path]]] = {
        "esm": lambda: ["node", "main.mjs"],
        "cjs": lambda: ["node", "main.cjs"],
        "node18": lambda: [runtime("node18"), "main.mjs"],
        "deno": lambda: [runtime("deno"), "run", "--no-remote", "--node-modules-dir=manual", "-A", "main.mjs"],
        "bun": lambda: [runtime("bun"), "main.mjs"],
    }
    out = command(*start[kind](), project / f"out-{kind}", at=project, env=running.env | {"DENO_NO_UPDATE_CHECK": "1"})
    assert "missing:" in out
    print(out)


def test_where_there_is_only_the_web(project: Path, running: Running) -> None:
    """Bundled for browsers, and run with nothing but what browsers and edge runtimes have."""
    (project / "page.mjs").write_text(
        """
        import { PixelDojoClient } from "@pixeldojo/sdk";
        globalThis.done = (async () => {
          const pd = new PixelDojoClient({ apiKey: key, baseUrl: address });
          const { assets } = await pd.generate("testcard", { prompt: "bars" }, { pollIntervalMs: 20 });
          const blob = await (await pd.downloadAsset(assets[0])).blob();
          return `${typeof process} ${blob.size - assets[0].bytes}`;
        })();
        """
    )
    bundle = project / "page.js"
    command(runtime("bun"), "build", "page.mjs", "--target=browser", "--format=iife", f"--outfile={bundle}", at=project)
    (project / "web.mjs").write_text(
        """
        import { readFileSync } from "node:fs";
        import { createContext, runInContext } from "node:vm";
        const web = { AbortController, Headers, ReadableStream, Response, TextDecoder, TextEncoder, URL, atob, btoa };
        const { PIXELDOJO_API_KEY: key, PIXELDOJO_BASE_URL: address } = process.env;
        const page = createContext({ ...web, clearTimeout, crypto, fetch, performance, setTimeout, key, address });
        runInContext(readFileSync("page.js", "utf8"), page);
        console.log(await page.done);
        """
    )
    assert command("node", "web.mjs", at=project, env=running.env) == "undefined 0\n"


def test_server_that_is_gone(project: Path, tmp_path: Path) -> None:
    """Killed while a job is waited for: the documented error with the job's id, soon."""
    (project / "gone.mjs").write_text(
        """
        import { ConnectionError, PixelDojoClient } from "@pixeldojo/sdk";
        const pd = new PixelDojoClient({ maxRetries: 1 });
        const onProgress = ({ status }) => console.log(status);
        try {
          await pd.generate("testcard", { prompt: "!hang" }, { pollIntervalMs: 50, outageMs: 300, onProgress });
        } catch (error) {
          if (!(error instanceof ConnectionError) || !error.jobId) throw error;
          console.log(error.code, error.jobId);
        }
        """
    )
    with serving(tmp_path) as service, subprocess.Popen(
        ["node", "gone.mjs"], cwd=project, env=live.clean_environment() | service.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as client:  # fmt: skip
        assert client.stdout is not None
        while (line := client.stdout.readline()).strip() != "processing":
            assert line.strip() == "pending", line + client.stdout.read()
        service.process.kill()
        killed = time.monotonic()
        rest = client.stdout.read()
        assert re.fullmatch(r"connection_error job_\w+\n", rest), rest
        assert client.wait() == 0
        assert time.monotonic() - killed < 5


def samples() -> list[str]:
    """Every TypeScript sample of the README. Those without a client of their own go on with the first one's `pd`."""
    text = (SOURCES / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```ts\n(.*?)^```$", text, re.M | re.S)
    client = 'import { PixelDojoClient } from "@pixeldojo/sdk";\nconst pd = new PixelDojoClient();\n'
    return [each if "new PixelDojoClient" in each else client + each for each in found]


def test_readme(sources: Path, project: Path, running: Running) -> None:
    """Its samples pass the type check and run."""
    folder = project / "readme"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    generate = project / "node_modules/.bin/pixeldojo-types"
    command(generate, running.address, "--out", "pixeldojo-models.ts", at=folder)
    found = samples()
    assert len(found) == 7
    for number, sample in enumerate(found):
        (folder / f"sample{number}.ts").write_text(sample, encoding="utf-8")
    files = [f"readme/sample{number}.ts" for number in range(len(found))]
    tsc(sources, project, "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", *files)
    secret = base64.b64encode(bytes(32)).decode()
    env = running.env | {"WEBHOOK_SECRET": f"whsec_{secret}"}
    outs = []
    for number, sample in enumerate(found):
        if "export async function POST" in sample:
            outs.append(_post(folder, f"sample{number}.js", secret=secret, env=env))
        else:
            outs.append(command("node", f"sample{number}.js", at=folder, env=env))
    assert outs[0].startswith(f"{running.address}/api/v1/assets/")
    assert (folder / "panda.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "burger-1.png").exists()
    assert "pending 0\n" in outs[1]
    assert "completed 1\n" in outs[1]
    assert outs[2].splitlines()[-1].startswith("image/png ")
    assert outs[3].strip() in ("cancelled", "cancelling", "too_late")
    assert outs[5] == "job.completed job_1\n204 401\n"


def _post(folder: Path, sample: str, *, secret: str, env: dict[str, str]) -> str:
    """What a sample's web handler says to a signed webhook and to a forged one."""
    body = json.dumps({"type": "job.completed", "timestamp": "2025-01-22T12:00:00Z", "data": {"jobId": "job_1"}})
    now = str(int(time.time()))
    digest = hmac.new(base64.b64decode(secret), f"msg_1.{now}.{body}".encode(), hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": signature}
    (folder / "post.mjs").write_text(
        f'import {{ POST }} from "./{sample}";\nconst headers = {json.dumps(headers)};\n'
        "const request = (body) => new Request('http://h/', { method: 'POST', headers, body });\n"
        "const ask = async (body) => (await POST(request(body))).status;\n"
        f"console.log(await ask({json.dumps(body)}), await ask('{{}}'));\n"
    )
    return command("node", "post.mjs", at=folder, env=env)


GUIDE = {  # what each sample of a service's own documentation prints
    "generate": r"http://\S+/api/v1/assets/",
    "account": r"[\d.]+",
    "models": r"(?m)^dojo-mini 0\.1 ",
    "schema": r"aspect_ratio",
    "estimate": r"0\.1 true",
    "submit": r"job_\w+ http://\S+/job_\w+ 0\.1 [\d.]+",
    "poll": r"(?s)(pending|processing|completed).*image/png",
    "events": r"(?m)^completed$",
    "cancel": r"cancelled|cancelling|too_late",
    "jobs": r"job_\w+ dojo-mini completed",
    "hook": r"job\.completed",
    "fault": r"max_credit_cost",
    "verify": r"job\.completed job_1\n204 401\n",
    "picture": r"http://\S+/api/v1/assets/",
}


TOGETHER = """
import { format } from "node:util";

const outs = {};
for (const name of process.argv.slice(2)) {
  const said = [];
  console.log = console.error = (...words) => said.push(format(...words));
  await import(`./${name}.js`);
  outs[name] = said.join("\\n");
}
process.stdout.write(JSON.stringify(outs));
"""


def test_samples_of_the_guide(sources: Path, project: Path, running: Running) -> None:
    """What `/docs` shows in TypeScript passes the type check and runs."""
    found = {name: each["ts"] for name, each in live.docs(running.address).items() if "ts" in each}
    name = json.loads((SOURCES / "package.json").read_text())["name"]
    assert found.pop("install") == f"npm install {name}\n"  # as `project` did, with the package that was built here
    assert set(found) == set(GUIDE)
    folder = project / "guide"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    secret = base64.b64encode(bytes(32)).decode()
    with live.receiver() as (hook, _):
        for each, sample in found.items():
            (folder / f"{each}.ts").write_text(sample.replace(live.HOOK, hook), encoding="utf-8")
        files = [f"guide/{each}.ts" for each in found]
        tsc(sources, project, "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", *files)

        (folder / "together.mjs").write_text(TOGETHER)
        rest = sorted(set(found) - {"verify"}, key=lambda each: each != "generate")  # `picture` starts from its file
        outs = json.loads(command("node", "together.mjs", *rest, at=folder, env=running.env))
    env = running.env | {"WEBHOOK_SECRET": f"whsec_{secret}"}
    outs["verify"] = _post(folder, "verify.js", secret=secret, env=env)
    for each, pattern in GUIDE.items():
        assert re.search(pattern, outs[each]), (each, outs[each])
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "path"),
    [([], SOURCES / "src/models.generated.ts"), (["--python"], ROOT / "sdks/python/src/pixeldojo_sdk/models.py")],
    ids=["typescript", "python"],
)
def test_generated_input_types_are_those_of_the_catalogue(
    running: Running, tmp_path: Path, flags: list[str], path: Path
) -> None:
    script = SOURCES / "scripts/generate.mjs"
    made = command("node", script, running.address, "--except", "testcard", *flags, at=tmp_path)
    told = f"run `node scripts/generate.mjs ADDRESS --except testcard {' '.join(flags)} --out {path}`"
    assert made == path.read_text(encoding="utf-8"), told
