"""The ASGI application over an open house."""

from litestar import Litestar
from litestar.datastructures import State
from litestar.types import ASGIApp

from pixeldojo.api import assets, health, jobs, models, openapi
from pixeldojo.api.edge import Edge
from pixeldojo.api.respond import on_error
from pixeldojo.house import House


def build(house: House) -> ASGIApp:
    """The application: every route of the API, and the envelope around every error."""
    app = Litestar(
        route_handlers=[
            health.healthz, health.readyz,
            models.list_models, models.get_model, models.get_schema,
            jobs.run_model, jobs.get_job, jobs.list_jobs,
            assets.get_asset,
            openapi.get_openapi,
        ],
        exception_handlers={Exception: on_error},
        request_max_body_size=house.settings.max_body_bytes,
        openapi_config=None,
        logging_config=None,
        state=State({"house": house}),
    )  # fmt: skip
    return Edge(app)
