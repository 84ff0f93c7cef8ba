"""The API's description: two documents for programs, pages for people (SPEC 1)."""

from typing import Any, Final

from pydantic import RootModel

from server.api_docs.site import ApiDocs
from server.errors import PathNotFound
from server.routing import PUBLIC, Call, Document, Route


class DescriptionOut(RootModel[dict[str, Any]]):
    """A description of the API for programs."""


class PageOut(RootModel[str]):
    """A page for people."""


async def _docs(call: Call[None, None]) -> ApiDocs:
    docs: ApiDocs = await call.services.docs.get()
    return docs


async def openapi(call: Call[None, None]) -> Document:
    return (await _docs(call)).openapi


async def asyncapi(call: Call[None, None]) -> Document:
    return (await _docs(call)).asyncapi


async def first_page(call: Call[None, None]) -> Document:
    return (await _docs(call)).pages["docs"]


async def other_page(call: Call[None, None]) -> Document:
    found = (await _docs(call)).pages.get(f"docs/{call.path['page']}")
    if found is None:
        raise PathNotFound
    return found


async def page_asset(call: Call[None, None]) -> Document:
    found = (await _docs(call)).assets.get(call.path["name"])
    if found is None:
        raise PathNotFound
    return found


_TAGS: Final = ("operations",)
ROUTES: Final = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This document",
        access=PUBLIC,
        response=DescriptionOut,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        handler=asyncapi,
        summary="The events of the socket, as AsyncAPI 3",
        access=PUBLIC,
        response=DescriptionOut,
        tags=_TAGS,
    ),
    Route(
        method="GET",
        path="/docs",
        handler=first_page,
        summary="A page to read and try the API",
        access=PUBLIC,
        response=PageOut,
        media_type="text/html",
        tags=_TAGS,
        documented=False,
    ),
    Route(
        method="GET",
        path="/docs/{page}",
        handler=other_page,
        summary="The guide, the events, the errors",
        access=PUBLIC,
        response=PageOut,
        media_type="text/html",
        tags=_TAGS,
        documented=False,
    ),
    Route(
        method="GET",
        path="/docs/assets/{name}",
        handler=page_asset,
        summary="What the pages load",
        access=PUBLIC,
        response=PageOut,
        media_type="application/octet-stream",
        tags=_TAGS,
        documented=False,
    ),
)
