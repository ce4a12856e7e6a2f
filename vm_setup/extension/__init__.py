"""comfyweb's ComfyUI extension: tells the host of real input and how far a prompt is, and the page around what goes on.

ComfyUI loads this folder as a custom node and reads the names below. There are no nodes in it. `web/` runs in ComfyUI's
page, which has to know the one origin that it may talk to: the keeper writes it down, and a route of ours answers it.
"""

# pyright: basic, reportMissingImports=false
import logging
from pathlib import Path

APP_ORIGIN = Path("/run/comfyweb/app-origin")
WEB_DIRECTORY = "./web"
NODE_CLASS_MAPPINGS: dict[str, object] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}


def read_origin() -> str:
    """Return the app's origin; nothing while the host doesn't know it."""
    try:
        return APP_ORIGIN.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def read_current() -> dict[str, object]:
    """Return the prompt that runs now, the kind of node it is at, and how many percent of that node are done.

    ComfyUI shows this to the tab that sent the prompt alone. Nothing while no prompt runs. Seen with ComfyUI 0.3.75.
    """
    if progress is None:
        return {}
    registry = progress.get_progress_state()
    nodes = list(registry.nodes.items())  # prompts run in another thread, which goes on meanwhile
    running = [(node, state) for node, state in nodes if state["state"] is progress.NodeState.Running]
    if not running:
        return {}
    node, state = running[-1]
    kind = registry.dynprompt.get_node(node)["class_type"]
    return {"prompt_id": registry.prompt_id, "node": kind, "percent": 100 * state["value"] / (state["max"] or 1)}


try:
    from aiohttp import web
    from server import PromptServer

    @PromptServer.instance.routes.get("/comfyweb/app-origin")
    async def app_origin(_: web.Request) -> web.Response:
        """Answer with the app's origin."""
        return web.json_response({"origin": read_origin()}, headers={"Cache-Control": "no-store"})

    @PromptServer.instance.routes.get("/comfyweb/current")
    async def current(_: web.Request) -> web.Response:
        """Answer with what runs now; nothing from a ComfyUI that keeps it elsewhere."""
        try:
            found = read_current()
        except Exception:  # the queue is told all the same
            logging.getLogger(__name__).debug("What runs now is not where it was.", exc_info=True)
            found = {}
        return web.json_response(found, headers={"Cache-Control": "no-store"})
except Exception:  # the page around learns nothing then, but the host still hears of input
    logging.getLogger(__name__).exception("comfyweb's page can't be told what ComfyUI does.")

try:
    from comfy_execution import progress
except ImportError:
    progress = None
