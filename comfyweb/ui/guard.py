"""Deny by default: without a living login only the named events run. A handler that nobody thought of is denied too.

Reflex runs any public function of any state for anybody with a websocket, and gives a tab's server-side state to
whoever comes back with its id. So a login counts only on the websocket on which the browser handed it over.
"""

from typing import Final

import reflex as rx
from reflex.middleware.middleware import Middleware
from reflex.state import BaseState, State, StateUpdate
from reflex_base.event import Event

from comfyweb.ui import live
from comfyweb.ui.state import Tab

_ROOT: Final = State.get_full_name()
HYDRATE: Final = frozenset({f"{_ROOT}.hydrate_and_load", f"{_ROOT}.hydrate"})
PUBLIC: Final = HYDRATE | {
    f"{_ROOT}.set_is_hydrated",
    f"{_ROOT}.reflex___state____on_load_internal_state.on_load_internal",
    f"{_ROOT}.reflex___state____update_vars_internal_state.update_vars_internal",
    f"{live.TAB}.join",
    f"{live.TAB}.login",
    f"{live.TAB}.failed",
}


class Guard(Middleware):
    """Looks at every event before its handler runs."""

    async def preprocess(self, app: rx.App, state: BaseState, event: Event) -> StateUpdate | None:
        """Return None to let the event through; otherwise its handler never runs and the tab is shown as logged out."""
        del app  # the signature is Reflex's
        tab = await state.get_state(Tab)
        if event.name in HYDRATE:
            tab._prove()  # noqa: SLF001 - a public name would be open to anybody
        if event.name in PUBLIC or tab._session() is not None:  # noqa: SLF001 - as above
            return None
        return live.delta(live.LOGGED_OUT)
