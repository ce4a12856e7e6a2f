"""What the settings accept, what they refuse and in which words."""

import base64
import re
import string
from decimal import Decimal
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from comfyweb import settings as module
from comfyweb.settings import OLD, SECRETS, Settings, SettingsError, load, reference, variables

ROOT = Path(__file__).parents[1]
HEX = string.hexdigits.lower()[:16]
SECRET = "9f8e7d6c5b4a39281706f5e4d3c2b1a0" * 2
OTHER_SECRET = SECRET[::-1]
GOOD = {"AUTH_PASSWORD": "correct horse battery", "JWT_SECRET": SECRET, "GCP_PROJECT": "demo-project"}
PASSWORD_HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(
    "correct horse battery", salt=b"16 fixed bytes.."
)
CONTRACT = frozenset(
    re.findall(
        r"\w+",
        """AUTH_PASSWORD JWT_SECRET PORT PUBLIC_URL TRUSTED_PROXY_HOPS GCP_PROJECT GCE_INSTANCE GCE_ZONE GCE_ZONES
        GOOGLE_APPLICATION_CREDENTIALS COMPUTE_ENDPOINT STARTUP_SCRIPT_URL COMFYUI_DOMAIN SSL_EMAIL CF_CERT_PATH
        CF_KEY_PATH ALLOWED_IP COMFYUI_URL APP_EGRESS_IP IDLE_MINUTES SESSION_CAP_HOURS DRAIN_MINUTES BUDGET_MONTHLY
        COMFYUI_RELEASE COMFYUI_GIT DEMO_COMFYUI_URL GATE_PRIVATE_KEY DATABASE_URL REDIS_URL LOG_FORMAT
        METRICS_TOKEN""",
    )
)
CONTRACT_OLD = frozenset(
    re.findall(
        r"\w+",
        """DISPATCHER_URL DISPATCHER_PORT FRONTEND_PORT GCE_COMFYUI_URL COMFYUI_AUTH_USER COMFYUI_AUTH_PASS
        SERVICE_ACCOUNT_KEY GCP_CREDENTIALS_PATH""",
    )
)


@pytest.fixture(autouse=True)
def _no_old_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(module, "OLD_CREDENTIALS_MOUNT", tmp_path / "sa-key.json")


def problems(**changed: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load({**GOOD, **changed}, None)
    return caught.value.problems


def problems_of(dotenv: Path) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(GOOD, dotenv)
    return caught.value.problems


def settings(**changed: str) -> Settings:
    return load({**GOOD, **changed}, None)


# -- documents -------------------------------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_contract() -> None:
    assert set(variables()) == CONTRACT
    assert set(OLD) == CONTRACT_OLD


def test_the_settings_page_says_what_the_code_says() -> None:
    assert (ROOT / "docs/settings.md").read_text() == reference(), "write comfyweb.settings.reference() into it"


def test_every_variable_has_a_meaning_and_stands_in_the_settings_page() -> None:
    for name in (*variables(), *OLD):
        assert f"\n| `{name}` | " in reference()
    assert all(Settings.model_fields[name.lower()].description for name in variables())


def test_the_example_names_every_variable_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert named - {f"{name}_FILE" for name in SECRETS} == CONTRACT
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", example.split("Still accepted")[1])) == CONTRACT_OLD


def test_the_example_as_it_is_asks_for_the_three_required_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, ROOT / ".env.example")
    assert [problem.split()[0] for problem in caught.value.problems] == ["AUTH_PASSWORD", "JWT_SECRET", "GCP_PROJECT"]


def test_the_examples_in_the_example_are_values_that_would_be_accepted(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text("{}")
    lines = re.findall(r"^#([A-Z_]+)=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    written = {name: value for name, value in lines if not name.endswith("_FILE")}
    changed = {"GOOGLE_APPLICATION_CREDENTIALS": str(key), "DATABASE_URL": "postgresql://db/comfyweb"}
    assert len(written) > 20
    warnings = settings(**{**written, **changed}).warnings
    assert [warning for warning in warnings if " yet" not in warning] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUDGET_MONTHLY", "40"),
        ("GCE_ZONES", "us-central1-a,us-central1-b"),
    ],
)
def test_a_setting_that_does_nothing_yet_says_so(name: str, value: str) -> None:
    (warning,) = settings(**{name: value}).warnings
    assert name in warning
    assert " yet" in warning


# -- defaults and sources --------------------------------------------------------------------------------------------


def test_three_settings_are_enough() -> None:
    found = settings()
    assert (found.port, found.public_url) == (3000, "http://localhost:3000")
    assert (found.gce_instance, found.gce_zones) == ("comfyui-gpu", ("us-central1-a",))
    assert (found.idle_minutes, found.session_cap_hours, found.drain_minutes, found.budget_monthly) == (
        30,
        10,
        30,
        None,
    )
    assert found.database_url.get_secret_value() == "sqlite:///comfyweb.db"
    assert found.google_application_credentials is None
    assert found.warnings == ()


def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, None)
    assert [problem.split(" is not set")[0] for problem in caught.value.problems] == [
        "AUTH_PASSWORD",
        "JWT_SECRET",
        "GCP_PROJECT",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_an_empty_value_counts_as_unset(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=4000\nGCE_ZONE=''\n")
    found = load({**GOOD, "PORT": "", "REDIS_URL": " "}, dotenv)
    assert (found.port, found.gce_zone, found.redis_url) == (4000, "us-central1-a", None)


def test_the_environment_goes_over_dotenv(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=4000\nGCE_INSTANCE=from-file\n")
    found = load({**GOOD, "PORT": "5000"}, dotenv)
    assert (found.port, found.gce_instance) == (5000, "from-file")


def test_a_missing_dotenv_is_no_error(tmp_path: Path) -> None:
    assert load(GOOD, tmp_path / ".env") == settings()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"AUTH_PASSWORD={PASSWORD_HASH}", PASSWORD_HASH),
        ("AUTH_PASSWORD=${HOME}$HOME,`id`\\n!!", "${HOME}$HOME,`id`\\n!!"),
        ("AUTH_PASSWORD='  kept # blanks  '", "  kept # blanks  "),
        ('export AUTH_PASSWORD = "with \' in between"  # why', "with ' in between"),
        ("AUTH_PASSWORD=horse#battery=staple # why", "horse#battery=staple"),
        ('AUTH_PASSWORD=it\'s "quoted" inside\r', 'it\'s "quoted" inside'),
    ],
)
def test_dotenv_values_are_taken_as_they_are(tmp_path: Path, line: str, value: str) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"\ufeff# a comment\n\n{line}\nGCE_ZONE= # nothing\n", newline="")
    found = load({"JWT_SECRET": SECRET, "GCP_PROJECT": "demo-project"}, dotenv)
    assert found.auth_password.get_secret_value() == value
    assert found.gce_zone == "us-central1-a"


def test_a_broken_line_in_dotenv_is_told_by_its_number_only(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=3000\nhunter2-hunter2\nAUTH_PASSWORD='hunter2\n")
    found = problems_of(dotenv)
    assert [problem.split(" is ")[0] for problem in found] == [".env line 2", ".env line 3"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_dotenv_that_is_no_text_is_told(tmp_path: Path, content: bytes | None) -> None:
    dotenv = tmp_path / ".env"
    dotenv.mkdir() if content is None else dotenv.write_bytes(content)
    assert ["UTF-8" in problem for problem in problems_of(dotenv)] == [True]


def test_a_name_in_dotenv_that_means_nothing_is_warned_of(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("BUGDET_MONTHLY=50\n")
    assert load(GOOD, dotenv).warnings == ("BUGDET_MONTHLY in .env is no setting and is ignored.",)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_can_lie_in_a_file(tmp_path: Path, name: str) -> None:
    values = {
        "AUTH_PASSWORD": PASSWORD_HASH,
        "JWT_SECRET": SECRET,
        "GATE_PRIVATE_KEY": base64.b64encode(bytes(range(32))).decode(),
        "DATABASE_URL": "postgresql://me:pw@db/comfyweb",
        "REDIS_URL": "redis://:pw@cache/0",
        "METRICS_TOKEN": SECRET[::-1],
    }
    file = tmp_path / "secret"
    file.write_text(values[name] + "\n")
    given = {**GOOD, "DATABASE_URL": values["DATABASE_URL"]}
    given.pop(name, None)
    found = getattr(load({**given, f"{name}_FILE": str(file)}, None), name.lower())
    assert (found[0] if isinstance(found, tuple) else found).get_secret_value() == values[name]


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    assert problems(JWT_SECRET_FILE=str(file)) == (
        "JWT_SECRET and JWT_SECRET_FILE are both set; leave one of them out.",
    )


@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "binary", "impossible"])
def test_a_secret_file_that_holds_none_is_one_problem(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "secret"
    match kind:
        case "empty":
            file.write_text("\n")
        case "directory":
            file.mkdir()
        case "binary":
            file.write_bytes(b"\xff\xfe")
        case "impossible":
            file = Path("nul\0")
        case _:
            pass
    assert [problem.startswith("REDIS_URL_FILE names") for problem in problems(REDIS_URL_FILE=str(file))] == [True]


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "change-me",
        "changeme",
        "secret",
        "password",
        "elevenchars",
        "aaaaaaaaaaaaaaaa",
        "password1234",
        "passwordpassword",
        "your-password-here",
        "your-secure-password",
        "change-this-password",
        "Please-Change-Me",
        "comfyui-admin-password",
        "<your password>",
        "123456789012345",
    ],
)
def test_a_default_or_short_password_is_refused(password: str) -> None:
    [problem] = problems(AUTH_PASSWORD=password)
    assert problem.startswith("AUTH_PASSWORD is ")


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        "change-me-in-production-0000000000000000",
        "your-super-secret-jwt-key-change-this-in-production",
        "a" * 64,
        "ab" * 32,
        "secretsecretsecretsecretsecretsecret",
        f"{SECRET},short",
        f"{SECRET},",
    ],
)
def test_a_default_or_short_signing_secret_is_refused(secret: str) -> None:
    [problem] = problems(JWT_SECRET=secret)
    assert problem.startswith("JWT_SECRET ")
    assert "openssl rand -hex 32" in problem


@pytest.mark.parametrize("token", ["f3b1c0", "a" * 64, "changeme-changeme-changeme-changeme-changeme", SECRET])
def test_a_token_for_metrics_is_as_good_as_a_signing_secret_and_no_other(token: str) -> None:
    [problem] = problems(METRICS_TOKEN=token)
    assert problem.startswith("METRICS_TOKEN ")
    assert token not in problem
    assert load({**GOOD, "METRICS_TOKEN": OTHER_SECRET}, None).metrics_token is not None


def test_the_password_is_no_signing_secret() -> None:
    assert problems(AUTH_PASSWORD=SECRET) == ("JWT_SECRET is the password; make one with: openssl rand -hex 32.",)


def test_several_signing_secrets_keep_their_order() -> None:
    found = settings(JWT_SECRET=f"{SECRET}, {OTHER_SECRET}").jwt_secret
    assert [secret.get_secret_value() for secret in found] == [SECRET, OTHER_SECRET]


@given(st.text(HEX, min_size=64, max_size=64).filter(lambda text: len(set(text)) > 12))
def test_what_openssl_makes_is_accepted(secret: str) -> None:
    assert settings(JWT_SECRET=secret).jwt_secret[0].get_secret_value() == secret


def test_an_argon2_hash_is_a_password() -> None:
    assert settings(AUTH_PASSWORD=PASSWORD_HASH).auth_password.get_secret_value() == PASSWORD_HASH


@pytest.mark.parametrize(
    "mangled",
    [
        PASSWORD_HASH.replace("$", "$$"),
        re.sub(r"\$[a-zA-Z_]\w*", "", PASSWORD_HASH),  # as compose leaves it
        PASSWORD_HASH[:-2],
        PASSWORD_HASH[:-42],
        PASSWORD_HASH + "!",
        PASSWORD_HASH.replace("m=64", "m=4"),
        PASSWORD_HASH.replace("m=64", "m=99999999"),
        PASSWORD_HASH.replace("t=1", "t=0"),
        PASSWORD_HASH.replace("p=1", "p=0"),
        PASSWORD_HASH.replace("$v=19", "$w=19"),
    ],
)
def test_a_mangled_argon2_hash_is_refused(mangled: str) -> None:
    [problem] = problems(AUTH_PASSWORD=mangled)
    assert problem.startswith(("AUTH_PASSWORD looks like an argon2 hash", "AUTH_PASSWORD is an argon2 hash"))


def pem(key: ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_a_gate_key_comes_as_pem_or_as_its_seed() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(200, 232)))
    seed = base64.b64encode(key.private_bytes_raw()).decode()
    url_seed = base64.urlsafe_b64encode(key.private_bytes_raw()).decode().rstrip("=")
    for text in (pem(key), pem(key).replace("\n", "\\n"), seed, url_seed, f"{url_seed},{pem(key)}"):
        assert {found.get_secret_value() for found in settings(GATE_PRIVATE_KEY=text).gate_private_key} == {seed}


@pytest.mark.parametrize(
    "key",
    ["abc", "A" * 43, "é", pem(x25519.X25519PrivateKey.from_private_bytes(bytes(range(32)))), "-----BEGIN nothing"],
)
def test_what_is_no_gate_key_is_refused(key: str) -> None:
    [problem] = problems(GATE_PRIVATE_KEY=key)
    assert problem.startswith("GATE_PRIVATE_KEY is no Ed25519 private key")


def test_no_secret_is_shown_by_the_settings() -> None:
    database = "postgresql://me:dbhunter@db/comfyweb"
    found = settings(DATABASE_URL=database, REDIS_URL="redis://:redishunter@cache/0")
    shown = f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"
    for secret in (GOOD["AUTH_PASSWORD"], SECRET, "dbhunter", "redishunter"):
        assert secret not in shown


# -- each kind of value ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PUBLIC_URL", "app.example.com"),
        ("PUBLIC_URL", "https://app.example.com/path"),
        ("PUBLIC_URL", "https://me:pw@app.example.com"),
        ("PUBLIC_URL", "https://app.example.com:99999"),
        ("PUBLIC_URL", "ftp://app.example.com"),
        ("TRUSTED_PROXY_HOPS", "-1"),
        ("GCP_PROJECT", "Short"),
        ("GCP_PROJECT", "your-project-id"),
        ("GCP_PROJECT", "ends-with-"),
        ("GCE_INSTANCE", "UPPER"),
        ("GCE_INSTANCE", "a" * 64),
        ("GCE_ZONE", "us-central1"),
        ("GCE_ZONES", "us-central1-a,us-central1"),
        ("GCE_ZONES", "us-central1-a,us-central1-a"),
        ("GCE_ZONES", "us-central1-a,,us-central1-b"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/"),
        ("COMPUTE_ENDPOINT", "localhost:3001"),
        ("COMPUTE_ENDPOINT", "http://compute.example.com"),
        ("STARTUP_SCRIPT_URL", "http://example.com/script"),
        ("STARTUP_SCRIPT_URL", "gs://bucket"),
        ("STARTUP_SCRIPT_URL", "https://me:pw@example.com/script"),
        ("COMFYUI_DOMAIN", "https://comfy.example.com"),
        ("COMFYUI_DOMAIN", "comfy"),
        ("COMFYUI_DOMAIN", "203.0.113.7"),
        ("COMFYUI_DOMAIN", "comfy_ui.example.com"),
        ("SSL_EMAIL", "nobody"),
        ("CF_CERT_PATH", "/etc/cert.pem"),
        ("ALLOWED_IP", "203.0.113.7 203.0.113.8"),
        ("ALLOWED_IP", "203.0.113.7,"),
        ("APP_EGRESS_IP", "10.0.0.0/33"),
        ("COMFYUI_URL", "http://localhost:3000"),
        ("COMFYUI_URL", "https://comfy.example.com/path"),
        ("COMFYUI_GIT", "git@github.com:me/ComfyUI.git"),
        ("COMFYUI_RELEASE", "--upload-pack=evil"),
        ("IDLE_MINUTES", "0"),
        ("IDLE_MINUTES", "nan"),
        ("IDLE_MINUTES", "inf"),
        ("IDLE_MINUTES", "half an hour"),
        ("SESSION_CAP_HOURS", "0"),
        ("SESSION_CAP_HOURS", "721"),
        ("DRAIN_MINUTES", "-1"),
        ("BUDGET_MONTHLY", "0"),
        ("BUDGET_MONTHLY", "$50"),
        ("BUDGET_MONTHLY", "Infinity"),
        ("BUDGET_MONTHLY", "NaN"),
        ("DATABASE_URL", "comfyweb.db"),
        ("DATABASE_URL", "mysql://db/comfyweb"),
        ("REDIS_URL", "localhost:6379"),
        ("DEMO_COMFYUI_URL", "localhost:8188"),
    ],
)
def test_a_value_that_cannot_be_right_is_one_problem_with_its_name(name: str, value: str) -> None:
    extra = {"CF_KEY_PATH": "gs://bucket/key"} if name == "CF_CERT_PATH" else {}
    [problem] = problems(**{name: value}, **extra)
    assert problem.startswith(f"{name} ")


def test_urls_are_kept_the_way_browsers_write_origins() -> None:
    assert settings(PUBLIC_URL="HTTPS://App.Example.com:443/").public_url == "https://app.example.com"
    assert settings(PORT="8080").public_url == "http://localhost:8080"
    assert settings(COMPUTE_ENDPOINT="http://[::1]:3001").compute_endpoint == "http://[::1]:3001"


def test_on_loopback_its_three_names_are_accepted_on_our_port_and_on_the_one_that_was_asked_for() -> None:
    names = ("localhost", "127.0.0.1", "[::1]")
    ours = {f"http://{name}:3000" for name in names}
    assert settings().origins() == ours
    assert settings().origins("localhost:8080") == ours | {f"http://{name}:8080" for name in names}
    assert settings().origins("[::1]") == ours | {f"http://{name}" for name in names}
    assert settings(PUBLIC_URL="http://127.0.0.1").origins() == {f"http://{name}" for name in names}


@given(st.text())
def test_no_host_header_adds_a_foreign_origin(host: str) -> None:
    assert all(re.match(r"http://(localhost|127\.0\.0\.1|\[::1\])(:|$)", origin) for origin in settings().origins(host))
    assert settings(PUBLIC_URL="https://app.example.com").origins(host) == {"https://app.example.com"}


def test_candidate_zones_keep_their_order_and_a_zone_beside_them_is_warned_of() -> None:
    found = settings(GCE_ZONES="us-east5-a, us-central1-ai1a", GCE_ZONE="europe-west4-b")
    assert found.gce_zones == ("us-east5-a", "us-central1-ai1a")
    assert "GCE_ZONE is not among GCE_ZONES and is ignored." in found.warnings
    assert settings(GCE_ZONES="us-east5-a").warnings == ()


def test_addresses_and_networks_are_kept_in_their_normal_form() -> None:
    assert settings(ALLOWED_IP="203.0.113.7, 10.1.2.3/8,2001:DB8::1").allowed_ip == (
        "203.0.113.7",
        "10.0.0.0/8",
        "2001:db8::1",
    )


@pytest.mark.parametrize("alone", ["CF_CERT_PATH", "CF_KEY_PATH"])
def test_a_certificate_goes_with_its_key(alone: str) -> None:
    assert problems(**{alone: "gs://bucket/object"}) == ("CF_KEY_PATH goes with CF_CERT_PATH; set both or neither.",)


def test_redis_needs_postgresql() -> None:
    [problem] = problems(REDIS_URL="redis://localhost")
    assert problem.startswith("REDIS_URL ")
    assert "DATABASE_URL" in problem
    assert settings(REDIS_URL="redis://localhost", DATABASE_URL="postgresql+psycopg://db/comfyweb").redis_url


def test_limits_take_fractions() -> None:
    found = settings(IDLE_MINUTES="0.25", BUDGET_MONTHLY="99.90", DRAIN_MINUTES="0")
    assert (found.idle_minutes, found.budget_monthly, found.drain_minutes) == (0.25, Decimal("99.90"), 0)


# -- credentials and the old system ----------------------------------------------------------------------------------


def test_the_old_mount_is_used_when_nothing_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "sa-key.json").write_text("{}")
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert settings().google_application_credentials == tmp_path / "sa-key.json"
    assert settings(GOOGLE_APPLICATION_CREDENTIALS=str(other)).google_application_credentials == other
    assert settings(GCP_CREDENTIALS_PATH=str(other)).google_application_credentials == other
    assert settings(SERVICE_ACCOUNT_KEY=str(other)).google_application_credentials == other


def test_a_key_that_lies_at_the_old_place_is_not_sent_to_an_emulator(tmp_path: Path) -> None:
    (tmp_path / "sa-key.json").write_text("{}")
    endpoint = "http://localhost:3001"
    assert settings(COMPUTE_ENDPOINT=endpoint).google_application_credentials is None
    named = str(tmp_path / "sa-key.json")
    assert settings(
        COMPUTE_ENDPOINT=endpoint, GOOGLE_APPLICATION_CREDENTIALS=named
    ).google_application_credentials == Path(named)


@pytest.mark.parametrize("value", ["nowhere.json", '{"private_key": "' + "x" * 5000, "nul\0"])
def test_an_old_credentials_path_that_leads_nowhere_only_warns(value: str) -> None:
    found = settings(SERVICE_ACCOUNT_KEY=value)
    assert found.google_application_credentials is None
    assert value not in str(found.warnings)


@pytest.mark.parametrize("name", sorted(OLD))
def test_a_variable_of_the_old_system_is_one_warning_that_hides_its_value(name: str) -> None:
    [warning] = settings(**{name: "old-value"}).warnings
    assert warning.startswith(f"{name} belongs to the system before comfyweb")
    assert "old-value" not in warning


@pytest.mark.parametrize(
    ("app", "comfyui", "one_site"),
    [
        ("https://app.example.com", "comfy.example.com", True),
        ("https://example.com", "comfy.example.com", True),
        ("https://app.example.com:8443", "comfy.gpu.example.com", True),
        ("https://app.example.co.uk", "comfy.example.co.uk", True),
        ("https://app.example.co.uk", "comfy.other.co.uk", False),
        ("https://app.example.com", "comfy.example.net", False),
        ("https://notexample.com", "comfy.example.com", False),
        ("https://app-x7k2-uc.a.run.app", "comfy-x7k2-uc.a.run.app", False),  # each its own site: a private suffix
        ("https://app.me.duckdns.org", "comfy.me.duckdns.org", True),
        ("https://app.duckdns.org", "comfy.duckdns.org", False),
        ("https://xn--bcher-kva.example", "comfy.xn--bcher-kva.example", True),
        ("https://203.0.113.7", "comfy.example.com", False),
        ("https://[2001:db8::7]", "comfy.example.com", False),
    ],
)
def test_names_that_are_not_one_site_are_warned_of(app: str, comfyui: str, one_site: bool) -> None:  # noqa: FBT001 - a table's column
    found = settings(PUBLIC_URL=app, TRUSTED_PROXY_HOPS="1", COMFYUI_DOMAIN=comfyui, SSL_EMAIL="me@example.com")
    assert found.same_site is one_site
    assert found.warnings == () if one_site else ["are not one site" in said for said in found.warnings] == [True]


@pytest.mark.parametrize("app", ["http://app.example.com", "http://localhost:3000"])
def test_a_page_without_https_is_told_what_becomes_of_comfyui(app: str) -> None:
    found = settings(PUBLIC_URL=app, COMFYUI_DOMAIN="comfy.example.com", SSL_EMAIL="me@example.com")
    assert not found.same_site, "a site is of one scheme"
    [warning] = found.warnings
    assert "in a tab of its own" in warning


def test_an_address_of_comfyuis_own_is_held_against_the_page_too() -> None:
    found = settings(PUBLIC_URL="https://app.example.com", TRUSTED_PROXY_HOPS="1", COMFYUI_URL="https://tunnel.test")
    assert "https://tunnel.test are not one site" in found.warnings[0]


def test_the_demo_is_one_site() -> None:
    found = settings(COMFYUI_URL="http://localhost:3002")
    assert found.same_site
    assert found.warnings == ()


def test_comfyui_may_not_share_the_apps_name() -> None:
    [problem] = problems(PUBLIC_URL="https://app.example.com", COMFYUI_DOMAIN="App.example.com.")
    assert problem.startswith("COMFYUI_DOMAIN is PUBLIC_URL's host")


def test_a_domain_without_a_way_to_a_certificate_is_warned_of() -> None:
    [warning] = settings(
        PUBLIC_URL="https://app.example.com", TRUSTED_PROXY_HOPS="1", COMFYUI_DOMAIN="comfy.example.com"
    ).warnings
    assert "SSL_EMAIL" in warning


def test_a_proxy_whose_visitors_would_all_count_as_one_is_warned_of() -> None:
    [warning] = settings(PUBLIC_URL="https://app.example.com").warnings
    assert "TRUSTED_PROXY_HOPS" in warning


# -- whatever comes --------------------------------------------------------------------------------------------------

NAMES = sorted({*CONTRACT, *CONTRACT_OLD, *(f"{name}_FILE" for name in SECRETS)})


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=80), max_size=8))
def test_any_environment_gives_settings_or_one_problem_per_variable_without_its_value(environ: dict[str, str]) -> None:
    marked = {name: f"{value}m4rk3d{value}" for name, value in environ.items() if name in SECRETS}
    found = outcome({**GOOD, **environ, **marked}, None)
    shown = f"{found!r} {found}"
    assert "m4rk3d" not in shown
    if isinstance(found, SettingsError):
        named = [problem.split()[0] for problem in found.problems]
        assert len(named) == len(set(named)) > 0
        assert set(named) <= set(NAMES)


def outcome(environ: dict[str, str], dotenv: Path | None) -> Settings | SettingsError:
    try:
        return load(environ, dotenv)
    except SettingsError as error:
        return error


@given(st.text(max_size=300))
def test_any_dotenv_gives_settings_or_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    dotenv = tmp_path_factory.mktemp("dotenv") / ".env"
    dotenv.write_text(text, errors="surrogatepass")
    assert outcome(GOOD, dotenv)
