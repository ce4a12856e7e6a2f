"""The frame of Compute Engine's REST: who asks, whether the call can be, what goes wrong on demand, and the answer."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from comfyweb.demo import render
from comfyweb.demo.bodies import object_in
from comfyweb.demo.box import Box
from comfyweb.demo.broken import HalfAnswer, Hang, Reset
from comfyweb.demo.faults import BAD_GATEWAY, HALF_ANSWER, HANG, LOST_ANSWER, REFUSALS, RESET
from comfyweb.demo.listing import page
from comfyweb.demo.methods import check_query, checked_body, method, verb_of
from comfyweb.demo.model import Operation, Refusal
from comfyweb.demo.world import World

BASE = "/compute/v1/"
LONGEST_BODY = 2 * 1024 * 1024

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that can be: its project, what its path names, its query and body, and who makes it."""

    world: World
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    user: str
    request: Request


Handler = Callable[[Call], Answer | Awaitable[Answer]]
Act = Callable[[Call], Operation]


def html_error(status: int, title: str) -> HTMLResponse:
    """Answer as Google's front does when the API itself is not reached."""
    return HTMLResponse(
        f"<!DOCTYPE html><html lang=en><title>Error {status} ({title})!!1</title><p><b>{status}.</b> {title}.</html>",
        status,
    )


# What is answered instead of doing the work, and after it.
BEFORE: Mapping[str, Callable[[], Response]] = {
    BAD_GATEWAY: lambda: html_error(502, "Server Error"),
    HANG: Hang,
    RESET: Reset,
}
AFTER: Mapping[str, Callable[[Answer], Response]] = {
    LOST_ANSWER: lambda _: html_error(504, "Gateway Timeout"),
    HALF_ANSWER: HalfAnswer,
}


def refused(found: Refusal) -> JSONResponse:
    """Answer in Google's error frame."""
    asks_for_a_token = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
    headers = asks_for_a_token if found.status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(render.refusal(found), found.status, headers)


def route(box: Box, name: str, handler: Handler) -> Route:
    """Route the method of this name. Its calls first meet the faults that wait for its verb."""
    of, verb = method(name), verb_of(name)

    async def endpoint(request: Request) -> Response:
        try:
            user = box.identity.caller(request.headers.get("authorization", ""), box.clock.now())
        except Refusal as found:
            return refused(found)
        fault = box.world.faults.take(verb, operation=False)
        if fault and fault.kind in BEFORE:
            return BEFORE[fault.kind]()
        try:
            if fault and fault.kind in REFUSALS:
                raise REFUSALS[fault.kind](verb, _resource(request))
            check_query(of, request.query_params)
            # Where no body belongs, what stands there is not looked at: libcloud sends "ignored" in such places.
            body = checked_body(of, await body_of(request)) if of.body else {}
            world = box.cloud.project(request.path_params["project"])
            answer = handler(
                Call(
                    world=world,
                    path=request.path_params,
                    query=request.query_params,
                    body=body,
                    user=user,
                    request=request,
                )
            )
            found = await answer if inspect.isawaitable(answer) else answer
        except Refusal as found:
            return refused(found)
        return AFTER[fault.kind](found) if fault else JSONResponse(found)

    return Route(BASE + of.path, endpoint, methods=[of.http], name=name)


def change(box: Box, name: str, act: Act) -> Route:
    """Route a method that changes something. The same `requestId` does it once, whatever became of it since."""

    def handler(call: Call) -> Answer:
        operation = call.world.register.once(call.query.get("requestId", ""), lambda: act(call))
        return render.operation(operation, call.world.now)

    return route(box, name, handler)


def listed(call: Call, kind: str, path: str, items: Sequence[dict[str, Any]]) -> Answer:
    """Answer the part of a list that is asked for. `path` is within the project."""
    shown, token = page(items, call.query)
    return render.listing(kind, f"{call.world.path}/{path}", shown, token)


def aggregated(
    call: Call, kind: str, collection: str, scopes: Iterable[str], items: Sequence[dict[str, Any]]
) -> Answer:
    """Answer a list of all scopes (`zones/Z`, `regions/R`), those that have none too."""
    shown, token = page(items, call.query)
    scoped: dict[str, Any] = {}
    for scope in scopes:
        below = render.link(f"{call.world.path}/{scope}/")
        here = [item for item in shown if item["selfLink"].startswith(below)]
        scoped[scope] = {collection: here} if here else {"warning": render.nothing_in(scope)}
    path = f"{call.world.path}/aggregated/{collection}"
    return {**render.listing(kind, path, [], token), "items": scoped}


async def body_of(request: Request) -> dict[str, Any]:
    """Read the JSON object that was sent. Raises `Refusal`, also for one that is too large."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LONGEST_BODY:
            raise Refusal(413, "uploadTooLarge", "Request payload size exceeds the limit.")
    return object_in(raw)


def _resource(request: Request) -> str:
    """Find the path of what the call is about, without its verb."""
    names = request.url.path.removeprefix(BASE).split("/")
    return "/".join(names[: len(names) // 2 * 2])
