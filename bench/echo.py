"""The yardstick for submits: the same server, edge and framework taking the same request, answering a constant.

`python -m bench.echo` prints its address and serves until it is ended.
"""

import signal
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

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
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again on its way out; we still have to clean up
    with tempfile.TemporaryDirectory(prefix="pixeldojo-echo-") as folder:
        wanted = replace(settings.Settings(), port=0, data_dir=Path(folder), rate_limit="off")
        sock: socket.socket = app.listen(wanted)
        async with app.open_house(wanted) as house:
            application = Edge(Litestar([run_model], openapi_config=None, logging_config=None), house)
            print(sock.getsockname()[1], flush=True)
            await uvicorn.Server(app.server_config(application)).serve(sockets=[sock])


if __name__ == "__main__":
    uvloop.run(main())
