"""The ASGI application over an open house."""

import functools

from litestar import Litestar
from litestar.datastructures import State
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp

from pixeldojo.api import account, admin, assets, events, guide, health, jobs, metrics, models, openapi, run, webhooks
from pixeldojo.api.edge import Edge
from pixeldojo.api.respond import address, on_error
from pixeldojo.house import House
from pixeldojo.mcp import door


def build(house: House) -> ASGIApp:
    """The application: every route of the API, and the envelope around every error."""
    app = Litestar(
        route_handlers=[
            health.healthz, health.readyz, metrics.get_metrics,
            models.list_models, models.get_model, models.get_schema,
            run.run_model, run.estimate,
            jobs.get_job, jobs.list_jobs, jobs.cancel_job, jobs.delete_job, events.job_events,
            webhooks.get_webhook, webhooks.replay_webhook, webhooks.get_secret, webhooks.rotate_secret,
            account.get_account, account.get_usage, account.get_ledger,
            account.list_keys, account.create_key, account.rotate_key, account.revoke_key,
            admin.list_accounts, admin.create_account, admin.get_account, admin.change_account,
            admin.grant, admin.create_key,
            assets.get_asset,
            openapi.get_openapi,
            *guide.ROUTES,
        ],
        exception_handlers={Exception: on_error},
        request_max_body_size=house.settings.max_body_bytes,
        openapi_config=None,
        logging_config=None,
        state=State({"house": house, "watch": metrics.Watch(house), "ready": health.Ready(house)}),
    )  # fmt: skip
    _say_every_method(app)
    # the agents' door speaks another protocol, which describes itself: it is no route of the API nor of its document
    agents = door.Door(house, app, address=functools.partial(address, public_url=house.settings.public_url))
    return Edge(app, house, doors=dict.fromkeys(door.PATHS, agents))


def _say_every_method(app: Litestar) -> None:
    """The framework's answer to OPTIONS names only the methods of the first handler that came to a path."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            before, _ = route.route_handler_map["OPTIONS"]
            handler = route.create_options_handler(route.path)
            handler.owner = before.owner
            handler.on_registration(app)
            model = handler.create_kwargs_model(path_parameters=route.path_parameters)
            route.route_handler_map["OPTIONS"] = (handler, model)
