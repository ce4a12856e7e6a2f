"""The names of things in what callers send: full addresses, paths from the project on, or paths within it."""

import re

from comfyweb.demo.model import Refusal

_VERSION = re.compile(r"^.*?/compute/\w+/")
_IMAGE = re.compile(r"projects/[a-z0-9.:-]+/global/images/(?:family/)?[a-z0-9-]+")


def path_in(link: str, project: str) -> str:
    """Read a link as a path from `projects/` on; a link without a project means the caller's own."""
    path = _VERSION.sub("", link).lstrip("/")
    return path if path.startswith("projects/") else f"projects/{project}/{path}"


def in_scope(link: str, field: str, scope: str, collection: str) -> str:
    """Read the name of what a link points to, which must be in this scope. Raises `Refusal`."""
    path = path_in(link, scope.split("/")[1])
    name = path.rpartition("/")[2]
    if path != f"{scope}/{collection}/{name}" or not name:
        raise Refusal.invalid(
            f"Invalid value for field '{field}': '{link}'. The URL is malformed, or not one of {collection} in {scope}."
        )
    return name


def is_image(path: str) -> bool:
    """Whether a path is one of an image. Every image that could be is taken to exist."""
    return _IMAGE.fullmatch(path) is not None
