"""What a websocket may say at all: a known event with a payload, as a page of ours sends it. Anything else ends it.

Reflex logs what it does not understand whole, with all request headers, so without this anybody could fill the log,
forge its lines, and have an owner's cookies written into it. Methods of the namespace are replaced, as Reflex has no
place for such a check; the version is pinned and a test sends garbage through it.
"""

import inspect
from typing import Any, Final, cast

from reflex.app import EventNamespace
from reflex_base.registry import RegistrationContext

# Of what a tab says about its address Reflex reads these; longer ones are no address of ours.
ADDRESS: Final = frozenset({"pathname", "asPath", "query"})
LONGEST_ADDRESS: Final = 2048
# No handler reads these, and so they lie in no state and in no log.
PRIVATE_HEADERS: Final = frozenset({"cookie", "authorization", "proxy-authorization", "x-auth-token"})


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
    return event | {"payload": payload, "router_data": kept}


def _fits(name: str, payload: dict[str, Any]) -> bool:
    """Whether there is a handler of that name which takes these arguments."""
    registered = RegistrationContext.get().event_handlers.get(name)
    if registered is None:
        return False
    try:
        inspect.signature(registered.handler.fn).bind(None, **payload)
    except TypeError:
        return False
    return True


def shut(namespace: EventNamespace) -> None:
    """Let nothing but known events through to this namespace."""
    handle, describe = namespace.on_event, namespace._build_static_router_data  # noqa: SLF001 - see the module's words

    async def on_event(sid: str, *data: object) -> None:
        event = known(data[0]) if len(data) == 1 else None
        if event is None:
            await namespace.disconnect(sid)
        else:
            await handle(sid, event)

    async def on_client_error(sid: str, *_: object) -> None:
        """Ignore what a browser reports of its own errors: anybody can send it, and as much as he likes."""

    def static_router_data(sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        described = describe(sid, environ)
        headers = {key: "" if key in PRIVATE_HEADERS else value for key, value in described["headers"].items()}
        return described | {"headers": headers}

    # An instance's own attribute goes before its class's method, also where python-socketio looks one up by name.
    vars(namespace).update(
        on_event=on_event, on_client_error=on_client_error, _build_static_router_data=static_router_data
    )
