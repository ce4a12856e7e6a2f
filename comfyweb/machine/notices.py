"""What the person at the page should know and Compute Engine or the host don't say."""

from collections.abc import Iterable

from comfyweb.machine.faults import lacking
from comfyweb.machine.model import MachineSeen, Observation, Policy
from comfyweb.machine.preparation import foreign_script


def notices(
    seen: Observation,
    policy: Policy,
    *,
    project: str,
    missing_permissions: Iterable[str],
    clock_difference: str,
    password_deleted: bool,
) -> Iterable[str]:
    """Yield the sentences. `clock_difference` says how our clock is against Google's, empty while they agree."""
    refused = seen.machine_fault.what if seen.machine_fault else ""
    for permission in missing_permissions:
        if permission not in refused:  # That one is told as the fault.
            fault = lacking(permission, project)
            yield f"{fault.what} {fault.todo}"
    machine = seen.machine
    if isinstance(machine, MachineSeen) and foreign_script(policy.metadata, machine.metadata):
        yield (
            "The machine has a start-up script that is not comfyweb's. It was left as it is, so comfyweb's own "
            "host software is not installed."
        )
    if clock_difference:
        yield (
            f"The clock of comfyweb's computer is {clock_difference} than Google's, which is gone by. "
            "Set it right: until then logins end too early or too late."
        )
    if password_deleted:
        yield "The old system's password (auth_user, auth_pass) was deleted from the machine's metadata."
