"""What went wrong, in words for the person who pays for the machine: what happened, whether it passes, what to do.

Failures are told apart by Compute Engine's code strings, never by exception class or status alone: a stock-out and an
outage are both 503, a quota and a missing permission both 403. `FAULTS` is the whole table (the documents are made
from it); `classify` finds the row and fills in what only the message says. An unknown code keeps Google's words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from comfyweb.machine.fault_words import WORDS
from comfyweb.machine.model import Fault

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.code: fault for fault in WORDS})


def named(code: str) -> Fault:
    """Return the row of `FAULTS` with this code. Raises KeyError for a code that is not in it."""
    return FAULTS[code]


NOT_LOOKED_YET = named("not-looked-yet")

# By Compute Engine's word for the state of a machine.
MACHINE_FAULTS: Mapping[str, Fault] = MappingProxyType(
    {word: named(word.lower()) for word in ("SUSPENDED", "SUSPENDING", "REPAIRING", "DEPROVISIONING")}
)

# Compute Engine's codes, without case and underscores: operations say QUOTA_EXCEEDED, HTTP errors quotaExceeded.
_CODES: Mapping[str, str] = MappingProxyType(
    {
        "zoneresourcepoolexhausted": "no-capacity",
        "zoneresourcepoolexhaustedwithdetails": "no-capacity",
        "regionresourcepoolexhausted": "no-capacity",
        "resourcepoolexhausted": "no-capacity",
        "gpustockout": "no-capacity",
        "insufficientcapacity": "no-capacity",
        "quotaexceeded": "quota",
        "forbidden": "permission",
        "iampermissiondenied": "permission",
        "permissiondenied": "permission",
        "serviceaccountaccessdenied": "act-as",
        "accessnotconfigured": "api-disabled",
        "servicedisabled": "api-disabled",
        "billingdisabled": "billing",
        "billingnotenabled": "billing",
        "notfound": "not-found",
        "resourcenotfound": "not-found",
        "autherror": "credentials-refused",
        "unauthorized": "credentials-refused",
        "unauthenticated": "credentials-refused",
        "ratelimitexceeded": "rate-limit",
        "userratelimitexceeded": "rate-limit",
        "resourceoperationrateexceeded": "rate-limit",
        "operationrateexceeded": "rate-limit",
        "resourcenotready": "not-ready",
        "operationcanceledbyuser": "called-off",
        "resourceinusebyanotherresource": "in-use",
        "conditionnotmet": "changed-meanwhile",
        "backenderror": "unavailable",
        "internalerror": "unavailable",
        "serviceunavailable": "unavailable",
    }
)
_UNAUTHORIZED = 401
_STATUSES = {_UNAUTHORIZED: "credentials-refused", 403: "permission", 412: "changed-meanwhile", 429: "rate-limit"}
_NOT_GOOGLE = frozenset({404, 405})

_LONGEST = 400
_TAG = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_QUOTA = re.compile(r"Quota '([\w-]+)' exceeded\.\s+Limit: ([\d.]+)(?: (globally)| in region ([\w-]+))?")
_RATE = re.compile(r"\b(?:requests|queries) per\b", re.IGNORECASE)
_PERMISSION = re.compile(r"\b(?:compute|iam)\.(?!googleapis|gserviceaccount)[A-Za-z]+\.[A-Za-z]+\b")
_RESOURCE = re.compile(r"'(?:[^']*/)?([a-zA-Z]+)/([^'/]+)'")
_PROJECT = re.compile(r"\bprojects/([\w:.-]+)")
_ZONE = re.compile(r"\bzones/([\w-]+)")
_ZONE_NAME = re.compile(r"[a-z]+(?:-[a-z0-9]+){1,3}", re.ASCII)
_MOST_ZONES = 6


def plain(text: str, longest: int = _LONGEST) -> str:
    """Return a stranger's text as one short line for people: no markup, no addresses, no control characters."""
    text = _ADDRESS.sub("", _TAG.sub(" ", text[: 20 * longest]))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def classify(code: str, message: str, *, http_status: int | None = None, elsewhere: Sequence[str] = ()) -> Fault:
    """Return the fault that Compute Engine means by `code` and `message`. Total: never raises, never loses the words.

    `code` is an operation's `error.errors[].code`, an HTTP error's `errors[].reason`, or one of `FAULTS`; empty when
    there was none, and then `http_status` decides. `elsewhere` are the zones that have what is lacking in this one.
    """
    message = message[: 20 * _LONGEST]
    row = code if code in FAULTS else _CODES.get(code.replace("_", "").lower(), "")
    if http_status is not None and (not code or http_status == _UNAUTHORIZED):
        row = _by_status(http_status)
    if row in {"quota", "permission", "rate-limit"} and _RATE.search(message):
        row = "rate-limit"
    match row:
        case "no-capacity":
            return _no_capacity(message, elsewhere)
        case "quota":
            return _quota(message)
        case "permission":
            return _permission(message)
        case "not-found":
            return _not_found(message)
        case "":
            return _unknown(code, message, http_status)
        case _:
            return FAULTS[row]


def lacking(permission: str, project: str = "PROJECT") -> Fault:
    """Return the fault for one permission that is missing, with the line that grants it."""
    if permission == "iam.serviceAccounts.actAs":
        return named("act-as")
    return replace(
        named("permission"),
        what=f"The account that comfyweb uses lacks the permission {permission}.",
        todo=f"Somebody who owns the project can grant it, then try again: gcloud projects add-iam-policy-binding "
        f"{project} --member=serviceAccount:ACCOUNT --role=roles/compute.instanceAdmin.v1 "
        f"(or add {permission} to the role it has).",
    )


def in_vain(fault: Fault, after: timedelta) -> Fault:
    """Return the same fault, of a call that is not repeated any more since it has been in vain for so long."""
    return replace(
        fault,
        what=f"{fault.what} comfyweb tried for {after / timedelta(minutes=1):g} minutes and has given up.",
        todo="Try again. If it stays so, look at the machine and at the project in the Google Cloud console.",
        retry=(),
    )


def _by_status(status: int) -> str:
    if status in _NOT_GOOGLE:
        return "bad-answer"  # Google says a code with every 404; a page without one comes from somebody else.
    return _STATUSES.get(status) or ("unavailable" if status >= 500 else "")  # noqa: PLR2004 - HTTP's server errors


def _no_capacity(message: str, elsewhere: Sequence[str]) -> Fault:
    fault = named("no-capacity")
    if zone := _ZONE.search(message):
        fault = replace(fault, what=fault.what.replace("this zone", f"zone {zone[1]}"))
    zones = [name for name in elsewhere if _ZONE_NAME.fullmatch(name)][:_MOST_ZONES]
    if zones:
        fault = replace(
            fault,
            what=f"{fault.what} Google says that there are some in {_listed(zones)} just now.",
            todo=fault.todo.replace("in another zone", "in such a zone"),
        )
    return fault


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _quota(message: str) -> Fault:
    found = _QUOTA.search(message)
    if not found:
        fault = named("quota")
        return replace(fault, what=f"{fault.what} Google said: {plain(message)}") if plain(message) else fault
    name, limit, globally, region = found.groups()
    where = "all regions together" if globally else f"region {region}" if region else "this region"
    number = limit.rstrip(".").removesuffix(".0")
    fault = named("quota-global" if globally or name == "GPUS_ALL_REGIONS" else "quota")
    return replace(fault, what=f"Your project's limit {name} for {where} is {number}, and the machine needs more.")


def _permission(message: str) -> Fault:
    if "serviceAccountUser" in message or "actAs" in message:
        return named("act-as")
    if "has not been used in project" in message or "it is disabled" in message:
        return named("api-disabled")
    if "billing" in message.lower():
        return named("billing")
    if "is not found or access is unauthorized" in message:
        return named("place-not-found")
    found = _PERMISSION.search(message)
    if found:
        project = _PROJECT.search(message)
        return lacking(found[0], project[1] if project else "PROJECT")
    fault = named("permission")
    return replace(fault, what=f"{fault.what} Google said: {plain(message)}") if plain(message) else fault


def _not_found(message: str) -> Fault:
    found = _RESOURCE.search(message)
    kind, name = (found[1], plain(found[2], 80)) if found else ("instances", "")
    if not found and "find project" in message:
        return named("place-not-found")
    match kind:
        case "instances":
            return named("not-found")
        case "operations":
            return named("operation-forgotten")
        case "projects" | "zones":
            fault = named("place-not-found")
            return replace(fault, what=f"Google knows no {kind.removesuffix('s')} named {name}, or hides it from us.")
        case _:
            fault = named("part-not-found")
            return replace(fault, what=f"The machine needs {name} ({kind}), which does not exist.")


def _unknown(code: str, message: str, http_status: int | None) -> Fault:
    words, label = plain(message), plain(code, 80) or (f"HTTP {http_status}" if http_status else "")
    said = f"{words} ({label})" if words and label else words or label
    fault = named("unknown")
    return replace(fault, what=f"Google said: {said}") if said else fault
