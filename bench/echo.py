"""The yardstick for submits: the same server, edge and framework taking the same request, answering a constant.

`python -m bench.echo` prints its address and serves until it is ended.
"""

import socket
from dataclasses import replace

import uvicorn
import uvloop
from litestar import Litestar, Response, post
from litestar.params import FromPath

from pixeldojo import app, settings
from pixeldojo.api.edge import Edge
from pixeldojo.api.respond import ApiRequest, reply

_ANSWER = {
    "jobId": "job_019aae5bb2a94f1c0d3e5b7a9c8d6e2f",
    "status": "pending",
    "statusUrl": "http://127.0.0.1:8787/api/v1/jobs/job_019aae5bb2a94f1c0d3e5b7a9c8d6e2f",
    "creditCost": 1,
    "creditsRemaining": 99,
    "expiresAt": "2025-01-23T12:00:00.000Z",
}


@post("/api/v1/models/{api_id:str}/run", status_code=202)
async def run_model(request: ApiRequest, api_id: FromPath[str]) -> Response[bytes]:
    """Read the body, answer a constant."""
    await request.body()
    return reply(_ANSWER, status=202)


async def main() -> None:
    """Serve."""
    sock: socket.socket = app.listen(replace(settings.Settings(), port=0))
    application = Edge(Litestar([run_model], openapi_config=None, logging_config=None))
    print(sock.getsockname()[1], flush=True)
    await uvicorn.Server(app.server_config(application)).serve(sockets=[sock])


if __name__ == "__main__":
    uvloop.run(main())
