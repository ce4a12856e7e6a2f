"""Our ComfyUI extension, in a folder of custom nodes that is root's: no other node can change it."""

from importlib import resources

from vm_setup.base import files
from vm_setup.base.paths import Paths

CONFIG = "comfyweb/model-paths.yaml"
_NAME = "comfyweb"


def ensure(paths: Paths) -> None:
    """Write the extension, and the file by which ComfyUI finds it (its `--extra-model-paths-config`)."""
    packed = resources.files("vm_setup").joinpath("extension")
    for name in ("__init__.py", "web/comfyweb.js"):
        files.write_changed(
            paths.state / "custom_nodes" / _NAME / name, packed.joinpath(*name.split("/")).read_text("utf-8")
        )
    files.write_changed(paths.etc / CONFIG, f"comfyweb:\n  base_path: {paths.state}\n  custom_nodes: custom_nodes\n")
