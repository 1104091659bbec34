"""OpenAPI 3.1 of the live catalogue."""

from litestar import Response, get

from pixeldojo.api.respond import ApiRequest, reply


@get("/api/v1/openapi.json", sync_to_thread=False)
def get_openapi(request: ApiRequest) -> Response[bytes]:
    """The document."""
    return reply({})
