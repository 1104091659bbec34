"""The samples of every document, each written once: in shell with curl and jq, in TypeScript and in Python.

A service goes in, code comes out; `tests/guide/test_samples.py` runs all of it against a live one. The shell samples
build on each other in their order (`$JOB_ID`); the others stand alone.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pixeldojo.catalogue.card import Card
from pixeldojo.guide.inputs import as_json
from pixeldojo.guide.place import Place

HOOK = "https://example.com/webhook"
KEY = "pd_your_api_key"
_PROMPT = "A fantasy castle on a cliff at sunset"
_AUTH = '-H "Authorization: Bearer $PIXELDOJO_API_KEY"'
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TYPED = '-H "Content-Type: application/json"'


@dataclass(frozen=True, slots=True)
class Sample:
    """The same in up to three languages; empty where it makes no sense in one."""

    name: str
    title: str
    curl: str = ""
    typescript: str = ""
    python: str = ""

    @property
    def tabs(self) -> list[tuple[str, str, str]]:
        """(id, title, code) for each language that there is."""
        every = (("curl", "curl", self.curl), ("ts", "TypeScript", self.typescript), ("py", "Python", self.python))
        return [each for each in every if each[2]]


def _code(text: str, **names: str) -> str:
    """`text` with `<name>` filled in, without the line breaks around it."""
    for name, value in names.items():
        text = text.replace(f"<{name}>", value)
    return text.strip("\n") + "\n"


def _shell_json(value: Any) -> str:
    return shlex.quote(as_json(value))


def _python(value: Any) -> str:
    """`value` as Python writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_json(name)}: {_python(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    return repr(value) if value is None or isinstance(value, bool) else as_json(value)


def _typescript(value: Any) -> str:
    """`value` as TypeScript writes it: names without quotes where they need none."""
    if isinstance(value, dict):
        names = {name: name if _NAME.fullmatch(name) else as_json(name) for name in value}
        return "{ " + ", ".join(f"{names[name]}: {_typescript(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_typescript, value)) + "]"
    return as_json(value)


class Samples:
    """The samples for one service, with its address and one of its models in them."""

    def __init__(self, place: Place) -> None:
        card = place.starter
        self._api, self._painter = place.api, place.painter
        self._model = card.api_id if card else "MODEL_ID"
        self._input = sample_input(card)
        self._file = file_name(card, self._input)

    def _curl(self, path: str, *more: str, auth: bool = True, indent: int = 2) -> str:
        """A call in shell, one option a line."""
        lines = [f'curl -fsS "{self._api}{path}"', *([_AUTH] if auth else []), *more]
        return (" \\\n" + " " * indent).join(lines)

    def _post(self, verb: str, body: dict[str, Any], *more: str) -> str:
        return self._curl(f"/models/{self._model}/{verb}", _TYPED, *more, f"-d {_shell_json(body)}")

    def _ts(self, text: str, *, names: str = "PixelDojoClient", **more: str) -> str:
        head = f'import {{ {names} }} from "@pixeldojo/sdk";\n\n'
        if "PixelDojoClient" in names:
            head += "const pd = new PixelDojoClient({\n  apiKey: process.env.PIXELDOJO_API_KEY,\n"
            head += f'  baseUrl: "{self._api}",\n}});\n\n'
        return head + _code(text, model=self._model, input=_typescript(self._input), file=self._file, **more)

    def _py(self, text: str, *, names: str = "PixelDojoClient", **more: str) -> str:
        body = _code(text, model=self._model, input=_python(self._input), file=self._file, **more)
        lines = "".join(f"    {line}" if line.strip() else line for line in body.splitlines(keepends=True))
        head = f'from pixeldojo_sdk import {names}\n\nwith PixelDojoClient(base_url="{self._api}") as pd:\n'
        return head + lines

    def every(self) -> list[Sample]:
        """All samples, in the order in which the shell ones build on each other."""
        made: list[Callable[[], Sample]] = [
            self.key, self.install, self.models, self.schema, self.estimate, self.generate, self.submit, self.poll,
            self.events, self.jobs, self.cancel, self.fault, self.hook, self.verify, self.account,
        ]  # fmt: skip
        return [each() for each in made] + ([self.picture()] if self._painter else [])

    def key(self) -> Sample:
        """Where the other samples read the key."""
        return Sample("key", "Set your key", curl=f"export PIXELDOJO_API_KEY={KEY}\n")

    def install(self) -> Sample:
        """How to get the SDKs."""
        ts, py = "npm install @pixeldojo/sdk\n", "pip install pixeldojo-sdk\n"
        return Sample("install", "Install an SDK", typescript=ts, python=py)

    def models(self) -> Sample:
        """What can run here."""
        return Sample(
            "models",
            "List the models",
            curl=self._curl("/models", auth=False) + " | jq '.models[] | {apiId, description, creditCost}'\n",
            typescript=self._ts("""
const { models } = await pd.listModels();
for (const model of models) console.log(model.apiId, model.creditCost.default, model.description);
"""),
            python=self._py("""
for model in pd.list_models().models:
    print(model.api_id, model.credit_cost.default, model.description)
"""),
        )

    def schema(self) -> Sample:
        """What a model takes."""
        return Sample(
            "schema",
            "Read a model's schema",
            curl=self._curl(f"/models/{self._model}/schema", auth=False) + " | jq .schema.properties\n",
            typescript=self._ts("""
const { schema } = await pd.getModelSchema("<model>");
console.log(schema.properties);
"""),
            python=self._py("""
print(pd.get_model_schema("<model>").schema["properties"])
"""),
        )

    def estimate(self) -> Sample:
        """What a job would cost."""
        return Sample(
            "estimate",
            "Ask for the price",
            curl=self._post("estimate", self._input) + " | jq\n",
            typescript=self._ts("""
const { creditCost, affordable } = await pd.estimate("<model>", <input>);
console.log(creditCost, affordable);
"""),
            python=self._py("""
estimate = pd.estimate("<model>", <input>)
print(estimate.credit_cost, estimate.affordable)
"""),
        )

    def generate(self) -> Sample:
        """Submit, wait, download."""
        shell = f"""
JOB_ID=$({self._post("run", self._input)} | jq -r .jobId)

STATUS=pending
while [ "$STATUS" = pending ] || [ "$STATUS" = processing ]; do
  sleep 1
  STATUS=$({self._curl("/jobs/$JOB_ID", indent=4)} | tee job.json | jq -r .status)
done

if [ "$STATUS" = completed ]; then
  curl -fsS "$(jq -r '.assets[0].url' job.json)" -o {self._file}
else
  jq .error job.json
fi
"""
        return Sample(
            "generate",
            "Make something and save it",
            curl=_code(shell),
            typescript=self._ts("""
// Submits, polls until the job has ended, and throws when it failed.
const job = await pd.generate("<model>", <input>);

console.log(job.assets[0].url);
await pd.saveAsset(job.assets[0], "<file>");
"""),
            python=self._py("""
# Submits, polls until the job has ended, and raises when it failed.
job = pd.generate("<model>", <input>)

print(job.assets[0].url)
pd.save_asset(job.assets[0], "<file>")
"""),
        )

    def submit(self) -> Sample:
        """A submit with all that makes it safe to repeat."""
        body = self._input | {"max_credit_cost": 100, "metadata": {"order": 66}}
        key = '-H "Idempotency-Key: order-66-$(date +%s)"'
        return Sample(
            "submit",
            "Submit a job",
            curl=self._post("run", body, key) + " | tee receipt.json | jq\nJOB_ID=$(jq -r .jobId receipt.json)\n",
            typescript=self._ts(
                """
const receipt = await pd.run("<model>", <body>);
console.log(receipt.jobId, receipt.statusUrl, receipt.creditCost, receipt.creditsRemaining);
""",
                body=_typescript(body),
            ),
            python=self._py(
                """
receipt = pd.run("<model>", <body>)
print(receipt.job_id, receipt.status_url, receipt.credit_cost, receipt.credits_remaining)
""",
                body=_python(body),
            ),
        )

    def poll(self) -> Sample:
        """A job in the state it is in."""
        return Sample(
            "poll",
            "Poll a job",
            curl=self._curl("/jobs/$JOB_ID") + " | jq '{status, progress, output, error}'\n",
            typescript=self._ts("""
const { jobId } = await pd.run("<model>", <input>);
console.log((await pd.getJob(jobId)).status);

const job = await pd.waitForJob(jobId, { onProgress: ({ status, progress }) => console.log(status, progress) });
console.log(job.assets);
"""),
            python=self._py("""
receipt = pd.run("<model>", <input>)
print(pd.get_job(receipt.job_id).status)

job = pd.wait_for_job(receipt.job_id, on_progress=lambda seen: print(seen.status, seen.progress))
print(job.assets)
"""),
        )

    def events(self) -> Sample:
        """A job's events as they happen."""
        return Sample(
            "events",
            "Follow a job",
            curl=self._curl("/jobs/$JOB_ID/events", "--no-buffer") + "\n",
            typescript=self._ts("""
const { jobId } = await pd.run("<model>", <input>);
for await (const event of pd.events(jobId)) console.log(event.type);
"""),
            python=self._py("""
receipt = pd.run("<model>", <input>)
for event in pd.events(receipt.job_id):
    print(event.type)
"""),
        )

    def jobs(self) -> Sample:
        """The account's jobs."""
        return Sample(
            "jobs",
            "List your jobs",
            curl=self._curl("/jobs?limit=10&status=completed") + " | jq '.jobs[] | {jobId, model, status}'\n",
            typescript=self._ts("""
const { jobs, nextCursor } = await pd.listJobs({ limit: 10, status: "completed" });
for (const job of jobs) console.log(job.jobId, job.model, job.status);
console.log(nextCursor); // pass it as `cursor` for the next page
"""),
            python=self._py("""
for job in pd.iter_jobs(status="completed"):  # page after page
    print(job.job_id, job.model, job.status)
"""),
        )

    def cancel(self) -> Sample:
        """A job that nobody wants any more."""
        return Sample(
            "cancel",
            "Cancel a job",
            curl=self._curl("/jobs/$JOB_ID/cancel", "-X POST") + " | jq\n",
            typescript=self._ts("""
const { jobId } = await pd.run("<model>", <input>);
const { result } = await pd.cancel(jobId);
console.log(result); // cancelled, cancelling or too_late
"""),
            python=self._py("""
receipt = pd.run("<model>", <input>)
print(pd.cancel(receipt.job_id).result)  # cancelled, cancelling or too_late
"""),
        )

    def fault(self) -> Sample:
        """What an error looks like."""
        wrong = self._input | {"max_credit_cost": 0}
        names = "InsufficientCreditsError, JobFailedError, PixelDojoClient, ValidationError"
        return Sample(
            "fault",
            "Handle errors",
            curl=self._post("run", wrong).replace("-fsS", "-sS") + " | jq .error\n",
            typescript=self._ts(
                """
try {
  await pd.generate("<model>", <wrong>);
} catch (error) {
  if (error instanceof ValidationError) console.error(error.details); // every fault: [{ path, message }]
  else if (error instanceof InsufficientCreditsError) console.error("more credits, please");
  else if (error instanceof JobFailedError) console.error(error.code, error.message); // refunded
  else throw error;
}
""",
                names=names,
                wrong=_typescript(wrong),
            ),
            python=self._py(
                """
try:
    pd.generate("<model>", <wrong>)
except ValidationError as error:
    print(error.details)  # every fault, each with its path and message
except InsufficientCreditsError:
    print("more credits, please")
except JobFailedError as error:
    print(error.code, error.message)  # refunded
""",
                names=names,
                wrong=_python(wrong),
            ),
        )

    def hook(self) -> Sample:
        """Being called back, and called once more."""
        body = self._input | {"webhook_url": HOOK}
        wait = '-H "Prefer: wait=60"'
        shell = f"JOB_ID=$({self._post('run', body, wait)} | jq -r .jobId)\n"
        shell += self._curl("/jobs/$JOB_ID/webhook") + " | jq\n"
        shell += self._curl("/jobs/$JOB_ID/webhook", "-X POST") + " | jq\n"
        return Sample(
            "hook",
            "Use a webhook",
            curl=f"# Submit, look at the deliveries, send it once more\n{shell}",
            typescript=self._ts(
                """
const job = await pd.generate("<model>", <body>);
const { deliveries } = await pd.getWebhook(job.jobId);
console.log(deliveries);
await pd.replayWebhook(job.jobId); // sends it once more
""",
                body=_typescript(body),
            ),
            python=self._py(
                """
job = pd.generate("<model>", <body>)
print(pd.get_webhook(job.job_id).deliveries)
pd.replay_webhook(job.job_id)  # sends it once more
""",
                body=_python(body),
            ),
        )

    def verify(self) -> Sample:
        """The receiver of a webhook."""
        python = """
import os

from pixeldojo_sdk import WebhookVerificationError, verify_webhook


def receive(body: bytes, headers: dict[str, str]) -> int:
    \"\"\"Call it with the body as it came, and answer with the status it returns.\"\"\"
    try:
        event = verify_webhook(body, headers, os.environ["WEBHOOK_SECRET"])
    except WebhookVerificationError:
        return 401
    print(event.type, event.data["jobId"])
    return 204
"""
        typescript = """
export async function POST(request: Request): Promise<Response> {
  try {
    const event = await verifyWebhook(await request.text(), request.headers, process.env.WEBHOOK_SECRET ?? "");
    console.log(event.type, event.data.jobId);
    return new Response(null, { status: 204 });
  } catch (error) {
    if (error instanceof WebhookVerificationError) return new Response(error.message, { status: 401 });
    throw error;
  }
}
"""
        return Sample(
            "verify",
            "Check who calls",
            curl="# The secret that signs your webhooks; OWNER_KEY is a key with the scope account:write\n"
            + self._curl("/account/webhook-secret").replace("PIXELDOJO_API_KEY", "OWNER_KEY")
            + " | jq -r .secret\n",
            typescript=self._ts(typescript, names="verifyWebhook, WebhookVerificationError"),
            python=_code(python),
        )

    def account(self) -> Sample:
        """What is left."""
        return Sample(
            "account",
            "See your credits",
            curl=self._curl("/account") + " | jq '{credits, limits}'\n",
            typescript=self._ts("""
const { credits } = await pd.account();
console.log(credits);
"""),
            python=self._py("""
print(pd.account().credits)
"""),
        )

    def picture(self) -> Sample:
        """An input picture out of a file."""
        assert self._painter is not None
        card, field = self._painter, self._painter.pictures[0]
        body = {name: value for name, value in sample_input(card).items() if name == "prompt"}
        kind = "data:image/" + self._file.rpartition(".")[2].replace("jpg", "jpeg") + ";base64,"
        merged = as_json(body) + " + {" + field + f': ("{kind}" + $data)}}'
        shell = f"""
base64 < {self._file} | tr -d '\\n' > picture.b64
jq -n --rawfile data picture.b64 {shlex.quote(merged)} |
  {self._curl(f"/models/{card.api_id}/run", _TYPED, "-d @-", indent=4)} | jq
"""
        typescript = """
const { readFile } = await import("node:fs/promises");
const data = (await readFile("<file>")).toString("base64");
const job = await pd.generate("<painter>", { ...<body>, <field>: `<kind>${data}` });
console.log(job.assets[0].url);
"""
        python = """
data = base64.b64encode(pathlib.Path("<file>").read_bytes()).decode()
job = pd.generate("<painter>", <body> | {"<field>": f"<kind>{data}"})
print(job.assets[0].url)
"""
        names = {"painter": card.api_id, "field": field, "kind": kind}
        return Sample(
            "picture",
            "Start from a picture",
            curl=_code(shell),
            typescript=self._ts(typescript, body=_typescript(body), **names),
            python="import base64\nimport pathlib\n\n" + self._py(python, body=_python(body), **names),
        )


def sample_input(card: Card | None) -> dict[str, Any]:
    """A request body for this model: its first example, with what it requires besides."""
    if card is None:
        return {"prompt": _PROMPT}
    given = dict(card.examples[0]) if card.examples else {}
    for name in card.schema.get("required", []):
        if name not in given and name not in card.defaults:
            given[name] = _some(name, card.schema["properties"].get(name, {}))
    return given


def _some(name: str, spec: dict[str, Any]) -> Any:
    """A value for a parameter that is required."""
    if spec.get("x-input"):
        return "https://example.com/photo.png"
    for some in (*spec.get("examples", [])[:1], *spec.get("enum", [])[:1]):
        return some
    if spec.get("type") in ("integer", "number"):
        return spec.get("minimum", 1)
    return _PROMPT if spec.get("type", "string") == "string" and name == "prompt" else name


def file_name(card: Card | None, given: dict[str, Any]) -> str:
    if card is not None and card.modality == "video":
        return "video.mp4"
    form = str(given.get("format", card.defaults.get("format", "png") if card else "png"))
    return str(PurePosixPath("picture").with_suffix(f".{form}"))
