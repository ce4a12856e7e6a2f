"""Where the host's programs find each other, and what of the machine they share: ports, users, files."""

import os

# The keeper's port is one that only root may take: no code in ComfyUI can be there first, at boot or while the keeper
# starts again.
PORT = 289
# The gate's user, and the group of the same name: nginx's workers are in it, and may ask the gate.
USER = "comfyweb-gate"
# Units that more than one program speaks of.
COMFYUI_UNIT, NGINX_UNIT, VISITORS_UNIT = "comfyui.service", "comfyweb-nginx.service", "comfyweb-visitors.service"
# In /run/comfyweb: the keeper's memory, the steps of the boot and the warnings, and who needs the machine on.
STATE, STEPS, HOLDS = "keeper.json", "steps.json", "holds"
# In /var/lib/comfyweb: what the metadata server said last, and how long the steps of earlier boots took.
LAST_GOOD, DURATIONS = "metadata-last-good.json", "durations.json"


def address() -> str:
    """Return where the metadata server is. GCE_METADATA_HOST is what Google's own clients read too."""
    return f"http://{os.environ.get('GCE_METADATA_HOST') or '169.254.169.254'}"
