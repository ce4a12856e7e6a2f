"""What a websocket may say at all: a known event with a payload, as a page of ours sends it. Anything else ends it.

It may say so much at once and so much a second: each event waits in memory for the one before it.

Reflex logs what it does not understand whole, with all request headers, so without this anybody could fill the log,
forge its lines, and have an owner's cookies written into it. Methods of the namespace are replaced, as Reflex has no
place for such a check; the version is pinned and a test sends garbage through it.
"""

import inspect
import logging
import time
from collections.abc import Callable
from typing import Any, Final, cast, get_origin, get_type_hints

from reflex.app import EventNamespace
from reflex_base.config import get_config
from reflex_base.constants import RouteVar
from reflex_base.constants.state import FIELD_MARKER
from reflex_base.registry import RegistrationContext
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.access.addresses import address_of
from comfyweb.ui.guard import PUBLIC
from comfyweb.ui.live import TAB

log = logging.getLogger(__name__)

OWN: Final = TAB.rpartition(".")[0] + ".comfyweb___"  # how the names of our own states begin
CHECKED: Final = frozenset({bool, dict, float, int, list, str})
PACKETS: Final = tuple("0123456")  # the kinds of engine.io; a page sends text alone
POLICY_VIOLATION: Final = 1008
STORED: Final = f"{TAB}.token{FIELD_MARKER}"
# Of what a tab says about its address Reflex reads these; longer ones are no address of ours.
ADDRESS: Final = frozenset({"pathname", "asPath", "query"})
LONGEST_ADDRESS: Final = 2048
# No handler reads these, and so they lie in no state and in no log.
PRIVATE_HEADERS: Final = frozenset({"cookie", "authorization", "proxy-authorization", "x-auth-token"})

# A page sends three when it opens and one for a click.
EVENTS_AT_ONCE: Final = 100
EVENTS_A_SECOND: Final = 10.0


class Pace:
    """How many events a websocket may still send now."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left, self._at = float(EVENTS_AT_ONCE), monotonic()

    def keeps(self) -> bool:
        """Count an event; False when it is one too many."""
        now = self._monotonic()
        self._left = min(float(EVENTS_AT_ONCE), self._left + (now - self._at) * EVENTS_A_SECOND) - 1
        self._at = now
        return self._left >= 0


def known(data: object) -> dict[str, Any] | None:
    """Return the event if it is one that a page of ours sends, with no more in it than Reflex reads; else None."""
    if not isinstance(data, dict):
        return None
    event = cast("dict[str, Any]", data)
    name, payload, address = event.get("name"), event.get("payload", {}), event.get("router_data", {})
    if not isinstance(name, str) or not isinstance(payload, dict) or not isinstance(address, dict):
        return None
    if not _fits(name, cast("dict[str, Any]", payload)):
        return None
    kept = {key: value for key, value in cast("dict[str, Any]", address).items() if key in ADDRESS}
    texts = (kept.get("pathname", ""), kept.get("asPath", ""))
    if not all(isinstance(text, str) for text in texts) or not isinstance(kept.get("query", {}), dict):
        return None
    if len(str(kept)) > LONGEST_ADDRESS:
        return None
    return event | {"payload": _stored(cast("dict[str, Any]", payload)), "router_data": kept}


def _stored(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with no more of a browser's storage than we put there.

    Over other names Reflex stumbles, and values that are no text it logs.
    """
    if "vars" not in payload:
        return payload
    stored = payload["vars"]
    token = cast("dict[str, object]", stored).get(STORED) if isinstance(stored, dict) else None
    return payload | {"vars": {STORED: token} if isinstance(token, str) else {}}


def _fits(name: str, payload: dict[str, Any]) -> bool:
    """Whether our page sends an event of that name with arguments like these.

    Reflex has more: `setvar` in each state, and reports of a browser's errors. They fail, or fill the log.
    """
    ours = name in PUBLIC or (name.startswith(OWN) and not name.endswith(".setvar"))
    registered = RegistrationContext.get().event_handlers.get(name) if ours else None
    if registered is None:
        return False
    function = registered.handler.fn
    try:
        inspect.signature(function).bind(None, **payload)
    except TypeError:
        return False
    kinds = get_type_hints(function)
    return all(_is(value, kinds.get(argument)) for argument, value in payload.items())


def _is(value: object, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return kind not in CHECKED or isinstance(value, kind)


def shut(namespace: EventNamespace, monotonic: Callable[[], float] = time.monotonic) -> None:
    """Let nothing but known events through to this namespace, and say from which address they come."""
    handle, describe = namespace.on_event, namespace._build_static_router_data  # noqa: SLF001 - see the module's words
    leave = namespace.on_disconnect
    paces: dict[str, Pace] = {}

    async def on_event(sid: str, *data: object) -> None:
        pace = paces.setdefault(sid, Pace(monotonic))
        event = known(data[0]) if len(data) == 1 and pace.keeps() else None
        if event is None:
            await namespace.disconnect(sid)
        else:
            await handle(sid, event)

    def on_disconnect(sid: str, *_: object) -> Any:
        paces.pop(sid, None)
        return leave(sid)

    async def on_client_error(sid: str, *_: object) -> None:
        """Ignore what a browser reports of its own errors: anybody can send it, and as much as he likes."""

    def static_router_data(sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        described = describe(sid, environ)
        headers = {key: "" if key in PRIVATE_HEADERS else value for key, value in described["headers"].items()}
        address = address_of(environ.get("asgi.scope") or {}, get_config().trusted_proxy_hops)
        return described | {"headers": headers, str(RouteVar.CLIENT_IP): address}

    # An instance's own attribute goes before its class's method, also where python-socketio looks one up by name.
    vars(namespace).update(
        on_event=on_event,
        on_disconnect=on_disconnect,
        on_client_error=on_client_error,
        _build_static_router_data=static_router_data,
    )


class Frames:
    """ASGI layer around the websocket: ends it at a frame that no page of ours sends, and at whatever breaks on one.

    engine.io reads a frame's first letter as a number and lets the error out, which the server logs in seventy lines.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a websocket on, with its frames as long as they are packets of engine.io."""

        async def receive_packets() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and (message.get("text") or "")[:1] not in PACKETS:
                return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
            return message

        try:
            await self._app(scope, receive_packets, send)
        except Exception as error:  # noqa: BLE001 - whatever a stranger has found
            log.warning("a websocket was ended: %s", type(error).__name__)
