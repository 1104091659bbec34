"""The tools through the official SDK: the only file that imports it, which takes half a second and 30 MB.

So this module is imported with the first call of `/mcp`, and by `pixeldojo mcp`.
"""

import base64
from typing import Any

import mcp_types as types
import msgspec
import structlog
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

from pixeldojo import __version__
from pixeldojo.mcp import tools
from pixeldojo.mcp.backend import Backend, Fault, Object
from pixeldojo.mcp.calling import Call, Result, models

_log = structlog.get_logger()
_LIST_FRESH_MS = 60_000
_SAID = 20  # models named in the list of tools; the rest is for search_models

Context = ServerRequestContext[Any, Any]


def build(backend: Backend, *, local: bool) -> Server[Any]:
    """A server that acts for one caller. `local`: over stdio, where the agent's files are this process's."""

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        try:
            cards = await models(backend)
        except Fault as fault:
            raise MCPError(types.INTERNAL_ERROR, f"{fault.message} {fault.remedy}", fault.shown()) from None
        return types.ListToolsResult(tools=[_tool(tool, cards) for tool in tools.offered(cards, local=local)])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        if not tools.known(params.name, local=local):
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:100]}")

        async def progress(fraction: float, text: str) -> None:
            await context.session.report_progress(fraction, 1.0, text)

        call = Call(backend, params.arguments or {}, progress, local)
        try:
            return _result(await tools.perform(params.name, call))
        except Fault as fault:
            return _said(fault.shown(), is_error=True)
        except Exception:
            _log.exception("tool_failed", tool=params.name)
            return _said(Fault("internal_error", "Something went wrong on our side.").shown(), is_error=True)

    return Server(
        "pixeldojo",
        title="PixelDojo",
        version=__version__,
        description="Images and videos from models you host yourself.",
        instructions=tools.INSTRUCTIONS,
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_FRESH_MS, scope="private")},
        get_tool_input_schema=lambda _: None,  # no tool takes an argument from a header
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _tool(tool: tools.Tool, cards: list[Object]) -> types.Tool:
    """The tool as the protocol lists it, naming the models that it is for."""
    takes = tool.takes
    if "model" in takes.get("required", ()):
        able = [card for card in cards if not tool.needs or tool.needs & set(card.get("capabilities", []))]
        named = [f"{card['apiId']} ({card.get('creditCost', {}).get('default')} credits)" for card in able[:_SAID]]
        more = ", …" if len(able) > _SAID else ""
        text = f"{takes['properties']['model']['description']} There are: {', '.join(named)}{more}."
        takes = takes | {
            "properties": takes["properties"] | {"model": takes["properties"]["model"] | {"description": text}}
        }
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.text,
        input_schema=takes,
        output_schema=tool.gives,
        annotations=types.ToolAnnotations.model_validate({"title": tool.title, **tool.hints}),
    )


def _said(data: Object, *, is_error: bool = False) -> types.CallToolResult:
    text = types.TextContent(text=msgspec.json.encode(data).decode())
    # an error has no structured content: clients would hold it against the tool's output schema
    return types.CallToolResult(content=[text], structured_content=None if is_error else data, is_error=is_error)


def _result(result: Result) -> types.CallToolResult:
    made = _said(result.data)
    for data, content_type in result.pictures:
        made.content.append(types.ImageContent(data=base64.b64encode(data).decode(), mime_type=content_type))
    return made


async def answer(backend: Backend, *, body: bytes, scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request whose caller is known. Keeps nothing: any process can answer the next one.

    Ends early, and with it the tool, when the client goes or the request is cancelled.
    """
    read = False

    async def again() -> Any:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    most = len(body) + 1  # whoever read it has seen to its length
    manager = StreamableHTTPSessionManager(build(backend, local=False), stateless=True, max_request_body_size=most)
    async with manager.run():
        await manager.handle_request(scope, again, send)


async def over_stdio(backend: Backend) -> None:
    """Answer on standard output what comes on standard input, until that is closed."""
    server = build(backend, local=True)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
