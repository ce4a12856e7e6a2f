"""Log in, ask whether one still is, log out."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictStr
from starlette.responses import Response

from comfyweb.access.addresses import address_of
from comfyweb.access.sessions import SessionsUnavailable, WrongPassword
from comfyweb.access.throttle import TooManyAttempts
from comfyweb.api.answers import Authenticated, LoggedIn, LoggedOut, moment
from comfyweb.api.caller import Caller
from comfyweb.api.problems import problem, unavailable
from comfyweb.control.services import services

router = APIRouter(prefix="/api/auth", tags=["Login"])

WRONG = "That is not the password."
TOO_MANY = "Too many attempts. Try again later; Retry-After says when."
NO_LOGIN = "Nobody can log in right now. The log of comfyweb says why; try again."
NOT_STORED = "That counts from now on, but could not be stored yet: a restart before it is would undo it."


class Password(BaseModel):
    """What a login needs."""

    password: Annotated[StrictStr, Field(description="AUTH_PASSWORD", max_length=4096)]


@router.post("/login", response_model=LoggedIn)
async def login(body: Password, request: Request) -> LoggedIn | Response:
    """Begin a session, for 24 hours. Sets no cookie: send the token as `x-auth-token` or `Authorization: Bearer`."""
    address = address_of(request.scope, services.settings.trusted_proxy_hops)
    try:
        token, session = await services.sessions.login(body.password, address)
    except WrongPassword:
        return problem(HTTPStatus.UNAUTHORIZED, WRONG, headers={"WWW-Authenticate": "Bearer"})
    except TooManyAttempts as refused:
        return problem(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY, headers={"Retry-After": str(refused.retry_after)})
    except SessionsUnavailable:
        return unavailable(NO_LOGIN)
    return LoggedIn(token=token, expires_at=moment(session.expires_at))


@router.get("/check")
async def check(session: Caller) -> Authenticated:
    """Tell that the token is good, and until when. Otherwise the answer is 401."""
    return Authenticated(authenticated=True, expires_at=moment(session.expires_at))


@router.get("/check-alt")
async def check_alt(session: Caller) -> Authenticated:
    """Tell the same at the address that some old clients use."""
    return await check(session)


@router.post("/logout", response_model=LoggedOut)
async def logout(session: Caller) -> LoggedOut | Response:
    """End this session, here and at ComfyUI."""
    try:
        await services.sessions.end(session)
    except SessionsUnavailable:
        return unavailable(NOT_STORED)
    return LoggedOut(success=True, message="Logged out.")


@router.post("/logout-everyone", response_model=LoggedOut)
async def logout_everyone(_: Caller) -> LoggedOut | Response:
    """End every session, this one too."""
    try:
        await services.sessions.end_all()
    except SessionsUnavailable:
        return unavailable(NOT_STORED)
    return LoggedOut(success=True, message="Everybody is logged out.")
