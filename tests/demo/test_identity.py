"""Whose calls are answered when the emulator verifies: those of service accounts with a key, and of its own machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import Unauthorized
from google.cloud import compute_v1
from google.oauth2 import service_account

from comfyweb.cloud.compute import CloudError, ComputeEngine
from comfyweb.demo.identity import SKEW, Identity
from comfyweb.demo.model import Refusal
from comfyweb.machine.model import MachineSeen
from tests.cloudbox import CloudBox
from tests.demo.conftest import WHICH

ZONE = "us-central1-a"
EMAIL = "comfyweb@demo-project.iam.gserviceaccount.com"
INSTANCE = f"/compute/v1/projects/demo-project/zones/{ZONE}/instances/comfyui-gpu"
AUDIENCE = "https://compute.googleapis.com/"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def key_file(name: str = "key-1", email: str = EMAIL) -> dict[str, Any]:
    """A service account's key, as Google hands it out."""
    pem = private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "project_id": "demo-project",
        "private_key_id": name,
        "private_key": pem.decode(),
        "client_email": email,
        "client_id": "100000000000000000000",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


pytestmark = pytest.mark.filterwarnings("ignore:The load_credentials_from_file method:DeprecationWarning")


@pytest.fixture
def cloud() -> Iterator[CloudBox]:
    identity = Identity(verifies=True)
    identity.register(key_file())
    with CloudBox(identity=identity) as box:
        yield box


def engine(url: str, key: Path | None) -> ComputeEngine:
    return ComputeEngine(
        project="demo-project",
        instance="comfyui-gpu",
        endpoint=url,
        credentials_file=key,
        now=lambda: datetime.now(UTC),
    )


async def refusal(url: str, key: Path | None) -> str:
    compute = engine(url, key)
    with pytest.raises(CloudError) as caught:
        await compute.look(ZONE)
    await compute.close()
    return caught.value.fault.code


def written(tmp_path: Path, key: dict[str, Any]) -> Path:
    (tmp_path / "key.json").write_text(json.dumps(key))
    return tmp_path / "key.json"


# -- comfyweb's own client ---------------------------------------------------------------------------------------------


async def test_comfyweb_with_a_key_starts_the_machine_and_is_named_as_who_did(cloud: CloudBox, tmp_path: Path) -> None:
    compute = engine(cloud.url, written(tmp_path, key_file()))
    seen = await compute.look(ZONE)
    assert isinstance(seen, MachineSeen)
    name = await compute.start(ZONE, "6f1c2b9e-7f3f-4f69-9d5e-0d4a4d0f7a11")
    assert cloud.world.operations[name].user == EMAIL
    await compute.close()


async def test_comfyweb_with_a_key_asks_iam_whether_it_may_act_for_the_machine(cloud: CloudBox, tmp_path: Path) -> None:
    compute = engine(cloud.url, written(tmp_path, key_file()))
    seen = await compute.look(ZONE)
    assert isinstance(seen, MachineSeen)
    assert await compute.may_act_as(seen.service_account)
    cloud.fault("act-as", times=None)
    assert not await compute.may_act_as(seen.service_account)
    cloud.control("keys", {"private_key_id": "key-1"}, method="DELETE")
    with pytest.raises(CloudError) as caught:
        await compute.may_act_as(seen.service_account)
    assert caught.value.fault.code == "credentials-refused"
    await compute.close()


async def test_comfyweb_with_a_foreign_a_revoked_or_no_key_is_refused(cloud: CloudBox, tmp_path: Path) -> None:
    assert await refusal(cloud.url, written(tmp_path, key_file("key-2"))) == "credentials-refused"
    forged = key_file("key-2") | {"private_key_id": "key-1"}
    assert await refusal(cloud.url, written(tmp_path, forged)) == "credentials-refused"
    other = key_file(email="somebody@demo-project.iam.gserviceaccount.com")
    assert await refusal(cloud.url, written(tmp_path, other)) == "credentials-refused"
    assert await refusal(cloud.url, None) == "credentials-refused"
    cloud.control("keys", {"private_key_id": "key-1"}, method="DELETE")
    assert await refusal(cloud.url, written(tmp_path, key_file())) == "credentials-refused"


async def test_comfyweb_whose_tokens_have_expired_is_refused(tmp_path: Path) -> None:
    # The emulator's clock stands two hours ahead, so that what comfyweb signs now is over by then.
    with CloudBox(manual=True) as box:
        box.control("keys", key_file())
        ahead = datetime.now(UTC) + timedelta(hours=2) - box.clock.now()
        box.advance(max(ahead, timedelta(0)))
        assert await refusal(box.url, written(tmp_path, key_file())) == "credentials-refused"


async def test_unless_it_verifies_everybody_is_the_same_caller(tmp_path: Path) -> None:
    with CloudBox() as box:
        for key in (None, written(tmp_path, key_file("key-2"))):
            compute = engine(box.url, key)
            assert isinstance(await compute.look(ZONE), MachineSeen)
            await compute.close()


# -- Google's own ------------------------------------------------------------------------------------------------------


ON_A_MACHINE = """
import sys
import google.auth
from google.api_core.client_options import ClientOptions
from google.cloud import compute_v1

credentials, project = google.auth.default()
instances = compute_v1.InstancesClient(credentials=credentials, client_options=ClientOptions(api_endpoint=sys.argv[1]))
print(instances.start_unary(project=project, zone="us-central1-a", instance="comfyui-gpu").user)
"""


def test_what_the_metadata_server_gives_out_is_good_where_googles_library_finds_it(
    cloud: CloudBox, tmp_path: Path
) -> None:
    # A process of its own, for the library reads where the metadata server is when it is imported.
    host = cloud.url.removeprefix("http://")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
    command = [sys.executable, "-W", "ignore", "-c", ON_A_MACHINE, cloud.url]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (said.stdout.strip(), said.returncode) == (
        "464646464646-compute@developer.gserviceaccount.com",
        0,
    ), said.stderr


def test_googles_client_without_a_good_token_is_unauthorized(cloud: CloudBox) -> None:
    credentials = service_account.Credentials.from_service_account_info(key_file("key-2"))
    options = ClientOptions(api_endpoint=cloud.url)
    client = compute_v1.InstancesClient(credentials=credentials, client_options=options)
    with pytest.raises(Unauthorized) as refused:
        client.get(**WHICH, retry=None)
    assert refused.value.errors[0]["reason"] == "authError"


def test_an_access_token_is_good_for_an_hour() -> None:
    with CloudBox(manual=True, identity=Identity(verifies=True)) as box:
        url = f"{box.url}/computeMetadata/v1/instance/service-accounts/default/token"
        answer = httpx.get(url, headers={"Metadata-Flavor": "Google"})
        assert answer.headers["metadata-flavor"] == "Google"
        given = answer.json()
        assert (given["token_type"], given["expires_in"]) == ("Bearer", 3599)
        asked = {"Authorization": f"Bearer {given['access_token']}"}
        box.advance(3598)
        assert httpx.get(box.url + INSTANCE, headers=asked).status_code == 200
        box.advance(1)
        assert httpx.get(box.url + INSTANCE, headers=asked).status_code == 401


def test_a_token_needs_the_metadata_servers_header(cloud: CloudBox) -> None:
    url = f"{cloud.url}/computeMetadata/v1/instance/service-accounts/default/token"
    assert httpx.get(url).status_code == 403
    other = url.replace("default", "somebody")
    assert httpx.get(other, headers={"Metadata-Flavor": "Google"}).status_code == 404


# -- what a token must be ----------------------------------------------------------------------------------------------


def signed(key: str = "key-1", headers: dict[str, Any] | None = None, algorithm: str = "RS256", **claims: Any) -> str:
    whole = {"iss": EMAIL, "sub": EMAIL, "aud": AUDIENCE, "iat": NOW, "exp": NOW + timedelta(hours=1), **claims}
    kept = {name: value for name, value in whole.items() if value is not None}
    secret: Any = private_key(key) if algorithm == "RS256" else "x" * 32
    return jwt.encode(kept, secret, algorithm, headers={"kid": "key-1", **(headers or {})})


@pytest.fixture(scope="module")
def identity() -> Identity:
    made = Identity(verifies=True)
    made.register(key_file())
    return made


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": None, "scope": "https://www.googleapis.com/auth/compute"},
        {"aud": None, "scope": "openid https://www.googleapis.com/auth/cloud-platform"},
        {"iat": NOW + SKEW, "exp": NOW + timedelta(minutes=30)},
        {"exp": NOW + timedelta(seconds=1)},
    ],
)
def test_a_good_token_names_its_service_account(identity: Identity, claims: dict[str, Any]) -> None:
    assert identity.caller(f"Bearer {signed(**claims)}", NOW) == EMAIL


@pytest.mark.parametrize(
    "claims",
    [
        {"key": "key-2"},
        {"headers": {"kid": "key-2"}},
        {"algorithm": "HS256"},
        {"aud": "https://storage.googleapis.com/"},
        {"aud": [AUDIENCE]},
        {"aud": None},
        {"aud": None, "scope": "https://www.googleapis.com/auth/devstorage.read_only"},
        {"aud": "https://storage.googleapis.com/", "scope": "https://www.googleapis.com/auth/compute"},
        {"iss": "somebody@example.com"},
        {"sub": "somebody@example.com"},
        {"exp": NOW},
        {"exp": None},
        {"iat": NOW + SKEW + timedelta(seconds=1)},
        {"exp": NOW + timedelta(hours=2)},
        {"exp": "soon"},
        {"iat": 10**30},
    ],
)
def test_any_other_token_is_refused(identity: Identity, claims: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        identity.caller(f"Bearer {signed(**claims)}", NOW)
    assert (refused.value.status, refused.value.reason) == (401, "authError")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "ya29.token"])
def test_no_token_is_refused_in_other_words(identity: Identity, header: str) -> None:
    with pytest.raises(Refusal) as refused:
        identity.caller(header, NOW)
    assert (refused.value.status, refused.value.reason) == (401, "required")


@pytest.mark.parametrize("token", ["x", "a.b.c", "ya29.unknown", "é", "." * 5000])
def test_garbage_is_refused(identity: Identity, token: str) -> None:
    with pytest.raises(Refusal):
        identity.caller(f"Bearer {token}", NOW)


def test_the_401_says_how_to_do_better(cloud: CloudBox) -> None:
    answer = httpx.get(cloud.url + INSTANCE)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert answer.json()["error"]["errors"][0]["reason"] == "required"


@pytest.mark.parametrize(
    "key",
    [
        {},
        {**key_file(), "private_key": "no key"},
        {**key_file(), "private_key": 7},
        {**key_file(), "client_email": 7},
        {"client_email": EMAIL, "private_key_id": "k", "public_key": "no key"},
    ],
)
def test_what_is_no_key_is_not_registered(cloud: CloudBox, key: dict[str, Any]) -> None:
    assert httpx.post(f"{cloud.url}/control/keys", json=key).status_code == 400


def test_a_public_half_is_enough_and_no_private_half_is_shown() -> None:
    public = private_key("key-1").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with CloudBox(manual=True) as box:
        said = box.control("keys", {"client_email": EMAIL, "private_key_id": "key-1", "public_key": public})
        assert (said["verifies"], said["keys"]) == (True, {"key-1": EMAIL})
        asked = {"Authorization": f"Bearer {signed()}"}
        assert httpx.get(box.url + INSTANCE, headers=asked).status_code == 200
        shown = json.dumps(box.control("keys", key_file("key-2")))
        assert "PRIVATE" not in shown
