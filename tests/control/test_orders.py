"""A host that HTTPS doesn't reach obeys by metadata: the real loop, an emulated cloud, the rules of the real host."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from comfyweb.access.host_tokens import HostTokens
from comfyweb.access.sessions import Session
from comfyweb.cloud.host import HostClient
from comfyweb.control.controller import Controller, Unavailable
from comfyweb.control.visitors import Visitors
from comfyweb.machine.model import Phase, StopMode, Verb, Wanted
from comfyweb.machine.orders import AGAIN, METADATA_KEY
from tests.control.driving import Driver, driven
from vm_setup.host import commands, tokens
from vm_setup.host.commands import CancelDrain, Command, Extend, KeepAlive, Order, Revoke, StartDrain

AUDIENCE = "host:demo-project/us-central1-a/comfyui-gpu"
APP = "http://localhost:3000"


def verify(jwk: tokens.Jwk, signed: bytes, signature: bytes) -> bool:
    Ed25519PublicKey.from_public_bytes(tokens.decode(str(jwk["x"])) or b"").verify(signature, signed)
    return True


class Machine:
    """The host as it is when nothing but Google reaches it: it reads metadata and writes guest attributes."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        key = SecretStr(base64.b64encode(b"k" * 32).decode())
        self.tokens = HostTokens(keys=[key], issuer=APP, audience=lambda: AUDIENCE, now=driver.loop.now)
        driver.loop._orders._sign = self.tokens.command
        self.trust = tokens.Trust(issuer=APP, audience=AUDIENCE, keys=tokens.read_keys(self.tokens.jwks))
        self.memory = tokens.Memory()
        self.acks: list[str] = []
        self.drain: dict[str, object] | None = None

    async def ready(self) -> None:
        """Come up, heard by way of Google alone."""
        await self.driver.ask(Wanted.ON)
        await self.driver.until(Phase.BOOTING)
        await self.tell()
        await self.driver.until(Phase.READY)

    async def tell(self) -> None:
        """Write what there is to tell, and let the app read it."""
        stops_at = (self.driver.now() + timedelta(minutes=20)).isoformat()
        self.driver.say_by_guest_attributes(
            "phase", boot_id="b", comfyui={"ready": True}, drain=self.drain, activity={"stops_at": stops_at}
        )
        self.driver.say_by_guest_attributes("heartbeat", boot_id="b", acks=self.acks, stops_at=stops_at)
        await self.driver.through(61)

    def obeys(self) -> list[Command]:
        """Take what is in the metadata, and acknowledge it."""
        listed = self.driver.box.machine.metadata.get(METADATA_KEY, "")
        now = self.driver.now().timestamp()
        taken = commands.take(listed, trust=self.trust, verify=verify, memory=self.memory, now=now)
        good = [one for one in taken if isinstance(one, Order)]
        assert good == taken, "nothing is refused"
        self.acks += [one.claims.jti for one in good]
        return [one.command for one in good]

    def writes(self) -> int:
        """Count how often metadata was written."""
        return sum(operation.kind == "setMetadata" for operation in self.driver.box.world.operations.values())


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        yield made


@pytest.fixture
async def machine(driver: Driver) -> Machine:
    made = Machine(driver)
    await made.ready()
    return made


@pytest.fixture
def controller(driver: Driver, machine: Machine) -> Controller:
    return Controller(
        ledger=driver.ledger,
        present=lambda: driver.loop,
        publisher=driver.publisher,
        host=cast(HostClient, driver.host),
        tokens=machine.tokens,
        visitors=Visitors(),
    )


@pytest.fixture
def session(driver: Driver) -> Session:
    return Session(jti="s", issued_at=driver.now(), expires_at=driver.now() + timedelta(hours=24))


async def test_a_gentle_stop_reaches_the_host_once_and_the_metadata_is_tidied_afterwards(
    driver: Driver, machine: Machine
) -> None:
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(10)
    assert driver.phase is Phase.DRAINING
    [command] = machine.obeys()
    assert isinstance(command, StartDrain)
    assert command.seconds == pytest.approx(1800, abs=10)
    until = (driver.now() + timedelta(minutes=29)).isoformat()
    machine.drain = {"until": until, "remaining": 1}
    await machine.tell()
    assert METADATA_KEY not in driver.box.machine.metadata
    assert machine.obeys() == []
    written = machine.writes()
    await machine.tell()
    assert machine.writes() == written, "what is told is not told again"
    assert driver.phase is Phase.DRAINING, "and the machine is left to finish its prompts"


async def test_a_stop_that_is_called_off_is_called_off_on_the_host_too(driver: Driver, machine: Machine) -> None:
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(10)
    assert [type(command) for command in machine.obeys()] == [StartDrain]
    await driver.ask(Wanted.ON)
    await driver.live(10)
    assert machine.obeys() == [CancelDrain()]
    await machine.tell()
    assert driver.phase is Phase.READY


async def test_a_stop_that_the_host_has_not_read_yet_is_taken_out_again(driver: Driver, machine: Machine) -> None:
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(10)
    await driver.ask(Wanted.ON)
    await driver.live(10)
    assert machine.obeys() == [CancelDrain()]


async def test_the_buttons_work_and_say_that_it_takes_a_while(
    driver: Driver, machine: Machine, controller: Controller, session: Session
) -> None:
    assert "by way of Google" in await controller.extend(session, 30)
    assert "by way of Google" in await controller.keep_alive(session)
    await controller.keep_alive(session)
    await driver.live(5)
    assert machine.obeys() == [Extend(30.0), KeepAlive()]


async def test_a_host_that_is_silent_on_both_ways_is_not_promised_anything(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.through(200)
    with pytest.raises(Unavailable):
        await controller.extend(session, 30)


async def test_one_that_has_just_answered_by_https_is_asked_that_way_again(
    driver: Driver, machine: Machine, controller: Controller, session: Session
) -> None:
    driver.answers(boot_id="b", stops_at=driver.now() + timedelta(minutes=20))
    await driver.live(10)
    driver.host.says = None
    with pytest.raises(Unavailable):
        await controller.extend(session, 30)
    assert machine.obeys() == []


async def test_a_logout_reaches_the_host_and_is_told_again_when_https_is_back(
    driver: Driver, machine: Machine, session: Session
) -> None:
    await driver.ledger.add(session)
    await driver.ledger.end(session.jti, driver.now())
    await driver.live(10)
    assert machine.obeys() == [Revoke(session.jti)]
    await machine.tell()
    for _ in range(12):
        await machine.tell()
        assert machine.obeys() == [], "the host knows"
    driver.answers(boot_id="b")
    await driver.live(10)
    assert f"revoke {session.jti}" in driver.host.heard, "what Google's way acknowledged could be forged"


async def test_a_host_that_answers_by_https_gets_nothing_by_metadata(driver: Driver, machine: Machine) -> None:
    driver.answers(boot_id="b")
    await driver.live(10)
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(5)
    assert any(heard.startswith("drain") for heard in driver.host.heard)
    assert METADATA_KEY not in driver.box.machine.metadata


async def test_metadata_that_cannot_be_written_are_tried_again_and_not_all_the_time(
    driver: Driver, machine: Machine
) -> None:
    driver.box.fault("permission", verb="setMetadata")
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(10)
    assert METADATA_KEY not in driver.box.machine.metadata
    attempts = [a for a in (await driver.ledger.standing()).attempts if a.verb is Verb.SEND_COMMANDS]
    assert len(attempts) == 1
    await driver.through(AGAIN.total_seconds() + 5, step=5)
    assert [type(command) for command in machine.obeys()] == [StartDrain]


async def test_another_process_tells_the_host_anew(driver: Driver, machine: Machine) -> None:
    await driver.ask(Wanted.OFF, StopMode.DRAIN)
    await driver.live(5)
    before = json.loads(driver.box.machine.metadata[METADATA_KEY])
    await driver.ledger.close()
    await driver.compute.close()
    driver.fresh()
    await driver.ledger.open()
    driver.loop._orders._sign = machine.tokens.command
    await driver.live(20)
    after = json.loads(driver.box.machine.metadata[METADATA_KEY])
    assert len(after) == len(before) == 1
    assert [type(command) for command in machine.obeys()] == [StartDrain]
