"""The ASGI application over an open house."""

from litestar import Litestar
from litestar.datastructures import State
from litestar.types import ASGIApp

from pixeldojo.api import account, admin, assets, events, health, jobs, metrics, models, openapi, run, webhooks
from pixeldojo.api.edge import Edge
from pixeldojo.api.respond import on_error
from pixeldojo.house import House


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
        ],
        exception_handlers={Exception: on_error},
        request_max_body_size=house.settings.max_body_bytes,
        openapi_config=None,
        logging_config=None,
        state=State({"house": house, "watch": metrics.Watch(house)}),
    )  # fmt: skip
    return Edge(app, house)
