"""Every tool over every transport: what it tells when it works, and what it tells when it can't."""

import base64
import copy
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import mcp_types as types
import msgspec
import pytest
from PIL import Image

from agents.conftest import Desk, data_of, fault_of
from doors.conftest import API, Service
from pixeldojo.catalogue.service import Catalogue
from pixeldojo.mcp import calling, tools

BARS = {"model": "testcard", "prompt": "bars"}
READS = {"list_models", "search_models", "model_schema", "estimate", "job_status", "list_jobs", "balance"}


def picture(colour: str = "red") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(written, "PNG")
    return written.getvalue()


def images(said: types.CallToolResult) -> list[bytes]:
    """The pictures in an answer, which are what they claim to be."""
    found = [each for each in said.content if isinstance(each, types.ImageContent)]
    assert all(each.mime_type == "image/png" for each in found)
    return [base64.b64decode(each.data) for each in found]


def test_the_list_of_tools(desk: Desk) -> None:
    async def listed() -> tuple[list[types.Tool], str | None]:
        async with desk.client() as client:
            return (await client.list_tools()).tools, client.instructions

    found, instructions = desk.service.do(listed())
    local = desk.transport == "home"
    named = {tool.name: tool for tool in found}
    assert list(named) == [tool.name for tool in tools.every(local=local) if tool.name != "image_to_video"]
    for name, tool in named.items():
        hints = tool.annotations
        assert hints is not None
        assert tool.title and tool.description, name
        assert hints.read_only_hint is (name in READS)
        assert hints.destructive_hint is (name == "cancel_job")
        assert hints.open_world_hint is (name in ("generate", "edit_image"))
        assert hints.idempotent_hint is (name not in ("generate", "edit_image"))
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            jsonschema_rs.Draft202012Validator(schema)
        assert all(each["description"] for each in tool.input_schema["properties"].values()), name
    assert ("path" in named["upload_image"].input_schema["properties"]) is local
    assert "testcard (1 credits)" in named["generate"].input_schema["properties"]["model"]["description"]
    assert instructions is not None
    assert "job_status" in instructions


def test_every_tool_at_work(desk: Desk, tmp_path: Path) -> None:
    source = {"data": base64.b64encode(picture()).decode()}
    if desk.transport == "home":
        (tmp_path / "in.png").write_bytes(picture())
        source = {"path": str(tmp_path / "in.png")}

    async def work() -> list[types.CallToolResult]:
        async with desk.client() as client:
            ask = client.call_tool
            said = [
                await ask("list_models", {"modality": "image"}),
                await ask("search_models", {"query": "colour bars"}),
            ]
            said += [
                await ask("model_schema", {"model": "testcard"}),
                await ask("estimate", {**BARS, "num_outputs": 3}),
            ]
            made = await ask("generate", {**BARS, "input": {"num_outputs": 2, "seed": 7}})
            upload = await ask("upload_image", source)
            edit = {**BARS, "seed": 1}
            for image in (data_of(made)["jobId"], data_of(made)["outputs"][1]["url"], data_of(upload)["uploadId"]):
                said.append(await ask("edit_image", {**edit, "image": image}))
            said += [made, upload, await ask("job_status", {"job_id": data_of(made)["jobId"]})]
            said += [await ask("list_jobs", {"limit": 3}), await ask("balance")]
            return [*said, await ask("cancel_job", {"job_id": data_of(made)["jobId"]})]

    said = desk.service.do(work())
    listed, searched, schema, price, *edits, made, upload, status, jobs, left, cancelled = said
    assert {card["apiId"] for card in data_of(listed)["models"]} == {"testcard", "testcard-hasty"}
    assert data_of(searched)["total"] == 2
    assert data_of(schema)["requestSchema"]["required"] == ["prompt"]
    assert data_of(price)["creditCost"] == 3
    done = data_of(made)
    assert done["status"] == "completed"
    assert [output["seed"] for output in done["outputs"]] == [7, 8]
    assert [output["inline"] for output in done["outputs"]] == [True, True]
    for output, shown in zip(done["outputs"], images(made), strict=True):
        assert desk.service.ask("GET", output["url"]).content == shown
    drawn = [images(edit)[0] for edit in edits]
    assert len(set(drawn)) == len(drawn), "each starts from another picture"
    assert (data_of(upload)["width"], data_of(upload)["height"]) == (16, 12)
    assert images(status) == images(made)
    assert data_of(status)["outputs"] == done["outputs"]
    assert len(data_of(jobs)["jobs"]) == 3
    assert data_of(jobs)["nextCursor"]
    assert data_of(left)["credits"] == 100 - 2 - 3
    assert data_of(cancelled)["result"] == "too_late"


def test_what_goes_wrong(desk: Desk) -> None:
    poor, bob = desk.service.person(credits=1), desk.service.person()
    theirs = bob.done()["jobId"]
    calls: list[tuple[str, Any]] = [
        ("generate", {"model": "testcart", "prompt": "bars"}),
        ("generate", {**BARS, "input": {"num_outputs": 9, "sead": 1}}),
        ("generate", {"prompt": "bars"}),
        ("generate", {**BARS, "input": {"num_outputs": 2}}),
        ("generate", {**BARS, "seed": 1, "input": {"seed": 2}}),
        ("model_schema", {"model": "nothing-like-it"}),
        ("list_jobs", {"limit": 0, "pages": 1}),
        ("job_status", {"job_id": theirs}),
        ("cancel_job", {"job_id": theirs}),
        ("edit_image", {**BARS, "image": theirs}),
        ("edit_image", {**BARS, "image": "upload_" + "0" * 32}),
        ("edit_image", {**BARS, "image": "http://10.0.0.1/a.png"}),
        ("edit_image", {**BARS, "image": "job_" + "0" * 32, "mask": "job_" + "0" * 32}),
        ("upload_image", {"data": "bm8gcGljdHVyZQ=="}),
        ("upload_image", {"data": "!"}),
    ]
    said = iter(desk.ask_all(*calls, of=poor))
    assert fault_of(next(said), "not_found")["models"] == ["testcard", "testcard-hasty"]
    wrong = fault_of(next(said), "validation_error")
    assert {each["path"]: each["message"] for each in wrong["details"]} == {
        "num_outputs": "must be at most 4, not 9", "sead": "unknown parameter; did you mean 'seed'?",
    }  # fmt: skip
    assert [each["path"] for each in fault_of(next(said), "validation_error")["details"]] == ["model"]
    dear = fault_of(next(said), "insufficient_credits")
    assert (dear["price"], dear["balance"]) == (2, 1)
    assert "twice" in fault_of(next(said), "validation_error")["message"]
    assert "search_models" in fault_of(next(said), "not_found")["remedy"]
    wrong = fault_of(next(said), "validation_error")
    assert {each["path"]: each["message"] for each in wrong["details"]} == {
        "limit": "must be at least 1, not 0",
        "pages": "unknown parameter; list_jobs takes limit, status, model, cursor",
    }  # fmt: skip
    for _ in range(3):  # another account's job is one that isn't there
        fault_of(next(said), "not_found")
    assert "upload_image" in fault_of(next(said), "validation_error")["remedy"]
    assert "https" in fault_of(next(said), "validation_error")["message"]
    assert "takes no mask" in fault_of(next(said), "validation_error")["message"]
    assert "PNG" in fault_of(next(said), "validation_error")["message"]
    assert "base64" in fault_of(next(said), "validation_error")["message"]
    assert poor.balance() == 1000, "nothing was charged"


def test_a_key_that_may_only_look(desk: Desk) -> None:
    looker = desk.ana.another_key(scopes=["jobs:read"])
    listed, refused, balance = desk.ask_all(("list_jobs", {}), ("generate", BARS), ("balance", {}), of=looker)
    assert data_of(listed)["jobs"] == []
    assert "jobs:write" in fault_of(refused, "unauthorized")["message"]
    assert "account:read" in fault_of(balance, "unauthorized")["message"]


def test_an_expired_job(desk: Desk) -> None:
    job = desk.ana.done()
    assert desk.ana.ask("DELETE", f"{API}/jobs/{job['jobId']}").status_code == 200
    for said in desk.ask_all(("job_status", {"job_id": job["jobId"]}), ("edit_image", {**BARS, "image": job["jobId"]})):
        assert "generate again" in fault_of(said, "expired")["remedy"]


def test_an_unknown_tool(desk: Desk) -> None:
    async def ask() -> Any:
        async with desk.client() as client:
            with pytest.raises(Exception, match="Unknown tool: draw"):
                await client.call_tool("draw", {})
            return data_of(await client.call_tool("list_models", {}))["models"][0]["apiId"]

    assert desk.service.do(ask()) == "testcard"


def test_a_repeated_call_is_charged_once(desk: Desk) -> None:
    asked = {**BARS, "idempotency_key": "order 17"}
    first, again, other = desk.ask_all(("generate", asked), ("generate", asked), ("generate", {**asked, "seed": 1}))
    assert data_of(first)["jobId"] == data_of(again)["jobId"]
    assert "replayed" not in data_of(first)
    assert data_of(again)["replayed"] is True
    assert "Idempotency" in fault_of(other, "validation_error")["message"]
    assert desk.ana.balance() == 99_000
    odd = ["ключ", "a\nb", " ", "x" * 256, "\0"]
    for said in desk.ask_all(*(("generate", {**BARS, "idempotency_key": key}) for key in odd)):
        assert {each["path"] for each in fault_of(said, "validation_error")["details"]} == {"idempotency_key"}


def test_a_failed_job_is_an_error_that_says_so(desk: Desk) -> None:
    (said,) = desk.ask_all(("generate", {"model": "testcard", "prompt": "!refuse"}))
    error = fault_of(said, "validation_error")
    assert "asks to be refused" in error["message"]
    assert error["creditsRefunded"] == 1
    (status,) = desk.ask_all(("job_status", {"job_id": error["jobId"]}))
    assert data_of(status)["status"] == "failed"
    assert data_of(status)["error"]["code"] == "validation_error"
    assert desk.ana.balance() == 100_000


def test_large_pictures_are_addresses_only(web: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "INLINE_BYTES", 10)
    said = web.ask("generate", BARS)
    assert images(said) == []
    assert data_of(said)["outputs"][0]["inline"] is False
    monkeypatch.setattr(calling, "INLINE_BYTES", 2**20)
    monkeypatch.setattr(calling, "INLINE_PICTURES", 2)
    said = web.ask("generate", {**BARS, "num_outputs": 3})
    assert len(images(said)) == 2
    assert [output["inline"] for output in data_of(said)["outputs"]] == [True, True, False]


def test_search(web: Desk) -> None:
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["testcard-hasty", "testcard"]),
        ({"query": "hasty"}, ["testcard-hasty"]),
        ({"query": "image-to-image"}, ["testcard-hasty", "testcard"]),
        ({"max_credits": 0.5}, ["testcard-hasty"]),
        ({"capability": "upscale"}, []),
        ({"modality": "video"}, []),
        ({"query": "no such thing"}, []),
    ]
    for said, (arguments, expected) in zip(
        web.ask_all(*(("search_models", arguments) for arguments, _ in asked)), asked, strict=True
    ):
        found = data_of(said)
        assert [card["apiId"] for card in found["models"]] == expected, arguments
        assert ("hint" in found) is (not expected)


def test_tools_that_no_model_can_do_are_not_offered() -> None:
    def names(*capabilities: str) -> set[str]:
        return {tool.name for tool in tools.offered([{"capabilities": list(capabilities)}], local=False)}

    always = {tool.name for tool in tools.offered([], local=False)}
    assert always == READS | {"generate", "cancel_job"}
    assert names("text-to-image", "text-to-video") == always
    assert names("inpainting") - always == {"edit_image", "upload_image"}
    assert names("image-to-video") - always == {"image_to_video", "upload_image"}


def test_masks_and_videos_where_a_model_takes_them(serve: Callable[..., Service]) -> None:
    plain = serve()
    (card,) = (card for card in plain.house.catalogue.cards if card.api_id == "testcard")
    schema = copy.deepcopy(card.schema)
    schema["properties"]["mask_url"] = schema["properties"]["image_url"]
    painter = msgspec.structs.replace(card, capabilities=["inpainting", "image-to-video"], schema=schema)
    service = Service(dataclasses.replace(plain.house, catalogue=Catalogue([painter])), plain.runner)
    with service.wire() as wire:
        desk = Desk(service, wire.port, "http")
        uploads = desk.ask_all(
            *(("upload_image", {"data": base64.b64encode(picture(c)).decode()}) for c in ("red", "blue"))
        )
        red, blue = (data_of(said)["uploadId"] for said in uploads)
        edit = {**BARS, "seed": 1, "image": red}
        masked, plainly, moved = desk.ask_all(
            ("edit_image", {**edit, "mask": blue}), ("edit_image", edit), ("image_to_video", edit)
        )
    assert images(plainly) == images(moved) != []
    assert set(desk.ana.job(data_of(masked)["jobId"])["input"]) >= {"image_url", "mask_url"}


def test_the_page_lists_the_tools() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")
    rows = {
        name: (takes, kind)
        for name, takes, kind in re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \| (\w+) \|$", page, re.M)
    }
    assert list(rows) == [tool.name for tool in tools.every(local=True)]
    for tool in tools.every(local=True):
        takes, kind = rows[tool.name]
        assert re.findall(r"`(\w+)`", takes) == list(tool.takes["properties"]), tool.name
        assert kind == tool.kind, tool.name
