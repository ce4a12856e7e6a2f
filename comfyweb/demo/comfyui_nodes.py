"""The few nodes that the stand-in knows, and the checks that ComfyUI makes before it accepts a prompt.

Shapes of answers and errors as ComfyUI 0.33.0 gives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vm_setup.host.reading import items, mapping, number

Json = dict[str, object]
LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A class of nodes. `needs` are its required inputs with their types; `saves` says that it leaves a picture."""

    needs: Mapping[str, str]
    gives: tuple[str, ...]
    category: str
    works: bool = False
    saves: str = ""


KINDS: Mapping[str, Kind] = {
    "CheckpointLoaderSimple": Kind(needs={"ckpt_name": "STRING"}, gives=("MODEL", "CLIP", "VAE"), category="loaders"),
    "CLIPTextEncode": Kind(needs={"text": "STRING", "clip": "CLIP"}, gives=("CONDITIONING",), category="conditioning"),
    "EmptyLatentImage": Kind(
        needs={"width": "INT", "height": "INT", "batch_size": "INT"}, gives=("LATENT",), category="latent"
    ),
    "KSampler": Kind(
        needs={
            "model": "MODEL",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "seed": "INT",
        },
        gives=("LATENT",),
        category="sampling",
        works=True,
    ),
    "VAEDecode": Kind(needs={"samples": "LATENT", "vae": "VAE"}, gives=("IMAGE",), category="latent"),
    "EmptyImage": Kind(needs={"width": "INT", "height": "INT"}, gives=("IMAGE",), category="image"),
    "LoadImage": Kind(needs={"image": "STRING"}, gives=("IMAGE", "MASK"), category="image"),
    "SaveImage": Kind(
        needs={"images": "IMAGE", "filename_prefix": "STRING"}, gives=(), category="image", saves="output"
    ),
    "PreviewImage": Kind(needs={"images": "IMAGE"}, gives=(), category="image", saves="temp"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A prompt that was accepted: its nodes in the order in which they run, and what of it matters to the stand-in."""

    prompt: Json
    order: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: float | None
    seed: str

    def node(self, node_id: str) -> Json:
        """Return a node of the prompt."""
        return mapping(self.prompt.get(node_id)) or {}

    def kind(self, node_id: str) -> Kind:
        """Return the class of a node of the prompt."""
        return KINDS[str(self.node(node_id).get("class_type"))]


class PromptRefusedError(ValueError):
    """ComfyUI would answer 400; `body` is what it would say."""

    def __init__(self, kind: str, message: str, details: str = "", node_errors: Json | None = None) -> None:
        error: Json = {"type": kind, "message": message, "details": details, "extra_info": {}}
        self.body: Json = {"error": error, "node_errors": node_errors or {}}
        super().__init__(message)


def object_info() -> Json:
    """Return what `/object_info` says of the nodes."""
    return {name: _described(name, kind) for name, kind in KINDS.items()}


def plan(prompt: object) -> Plan:
    """Check a prompt as ComfyUI does. Raises `PromptRefusedError`."""
    if prompt is None:
        raise PromptRefusedError("no_prompt", "No prompt provided", "No prompt provided")
    nodes = mapping(prompt)
    if nodes is None:
        raise PromptRefusedError("invalid_prompt", "The prompt is not an object of nodes")
    for node_id, value in nodes.items():
        name = (mapping(value) or {}).get("class_type")
        if not isinstance(name, str) or name not in KINDS:
            raise PromptRefusedError("missing_node_type", f"Node '{name}' not found", f"Node ID '#{node_id}'")
    outputs = tuple(node_id for node_id in nodes if KINDS[_class(nodes, node_id)].saves)
    if not outputs:
        raise PromptRefusedError("prompt_no_outputs", "Prompt has no outputs")
    order = _order(nodes, outputs)
    wrong: Json = {node_id: found for node_id in order if (found := _errors(nodes, node_id, outputs))}
    if wrong:
        raise PromptRefusedError("prompt_outputs_failed_validation", "Prompt outputs failed validation", "", wrong)
    return Plan(prompt=nodes, order=order, outputs=outputs, seconds=_seconds(nodes), seed=_seed(nodes))


def _class(nodes: Json, node_id: str) -> str:
    return str((mapping(nodes[node_id]) or {}).get("class_type"))


def _inputs(nodes: Json, node_id: str) -> Json:
    return mapping((mapping(nodes[node_id]) or {}).get("inputs")) or {}


def _source(nodes: Json, value: object) -> str | None:
    """Return the node that an input is wired to; a wire is `[node id, output]`."""
    match items(value):
        case [str(node_id), int()] if node_id in nodes:
            return node_id
        case _:
            return None


def _order(nodes: Json, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the nodes that the outputs need, each after those it needs itself. Raises if they go in a circle."""
    order: list[str] = []
    done: set[str] = set()
    pending = [(node_id, False) for node_id in reversed(outputs)]
    open_nodes: set[str] = set()
    while pending:
        node_id, entered = pending.pop()
        if entered:
            open_nodes.discard(node_id)
            done.add(node_id)
            order.append(node_id)
        elif node_id in open_nodes:
            raise PromptRefusedError("dependency_cycle", "The nodes are wired in a circle", f"Node ID '#{node_id}'")
        elif node_id not in done:
            open_nodes.add(node_id)
            pending.append((node_id, True))
            sources = [_source(nodes, value) for value in _inputs(nodes, node_id).values()]
            pending.extend((source, False) for source in sources if source is not None and source not in done)
    return tuple(order)


def _errors(nodes: Json, node_id: str, outputs: tuple[str, ...]) -> Json | None:
    name = _class(nodes, node_id)
    inputs = _inputs(nodes, node_id)
    errors: list[Json] = []
    for wanted, kind in KINDS[name].needs.items():
        if wanted not in inputs:
            errors.append(_error("required_input_missing", "Required input is missing", wanted))
        elif kind == "INT" and items(inputs[wanted]) is None and number(inputs[wanted]) is None:
            errors.append(_error("invalid_input_type", f"Failed to convert an input value to a {kind} value", wanted))
        elif kind not in {"INT", "STRING"} and _source(nodes, inputs[wanted]) is None:
            errors.append(_error("bad_linked_input", "Bad linked input, must be a length-2 list", wanted))
    return {"errors": errors, "dependent_outputs": list(outputs), "class_type": name} if errors else None


def _error(kind: str, message: str, wanted: str) -> Json:
    return {"type": kind, "message": message, "details": wanted, "extra_info": {"input_name": wanted}}


def _seconds(nodes: Json) -> float | None:
    """Return how long the prompt asks its job to take: the input `seconds` of any node, 0 to 600."""
    asked = [number(_inputs(nodes, node_id).get("seconds")) for node_id in nodes]
    found = [seconds for seconds in asked if seconds is not None]
    return min(max(found[0], 0.0), LONGEST_SECONDS) if found else None


def _seed(nodes: Json) -> str:
    """Return what the picture is made from: the words and the seeds of the prompt."""
    parts = [
        str(_inputs(nodes, node_id).get(name, "")) for node_id in sorted(nodes) for name in ("text", "seed", "color")
    ]
    return "|".join(parts)


def _described(name: str, kind: Kind) -> Json:
    required: Json = {wanted: [type_name, {}] for wanted, type_name in kind.needs.items()}
    return {
        "input": {"required": required, "optional": {"seconds": ["FLOAT", {"min": 0, "max": LONGEST_SECONDS}]}},
        "input_order": {"required": list(kind.needs), "optional": ["seconds"]},
        "output": list(kind.gives),
        "output_is_list": [False] * len(kind.gives),
        "output_name": list(kind.gives),
        "name": name,
        "display_name": name,
        "description": "",
        "category": kind.category,
        "output_node": bool(kind.saves),
    }
