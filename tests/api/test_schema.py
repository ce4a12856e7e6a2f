"""Schemathesis tries what the OpenAPI document allows and what it forbids, and holds the answers against it."""

import asyncio
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import ignored_auth

from comfyweb.api.app import create_api
from tests.api.conftest import World

# The event stream has no end; its own tests read it.
schema: Any = schemathesis.openapi.from_asgi("/api/openapi.json", create_api()).exclude(path="/api/instance/events")
bounded = settings(
    max_examples=settings().max_examples // 5,  # Each tries many things: 20 of them, and 4 in the inner loop.
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@schema.parametrize()
@bounded
def test_a_stranger_gets_what_the_document_says(world: World, case: Case[Any]) -> None:
    case.call_and_validate()


@schema.parametrize()
@bounded
def test_who_is_logged_in_gets_what_the_document_says(world: World, case: Case[Any]) -> None:
    token = asyncio.run(world.token())
    # It would call it a hole that a good x-auth-token goes before the bad tokens it puts beside it.
    case.call_and_validate(headers={"x-auth-token": token}, excluded_checks=[ignored_auth])
