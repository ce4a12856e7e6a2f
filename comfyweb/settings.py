"""Every setting on one screen: type, default, unit, limits and one-line meaning. Read this file first.

A setting that can't be right stops the start, because later it is noticed too late: a guessable password by a stranger,
a misspelt zone when somebody wants to work. All problems are told at once, one sentence per variable.

`.env` is read here and nowhere else, and literally: python-dotenv expands `${…}`, a shell expands `$`, and argon2
hashes are full of them. `docs/settings.md` is what `reference()` returns, and a test compares them.
"""

import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from comfyweb import settings_checks as check

OLD_CREDENTIALS_MOUNT = Path("/tmp/sa-key.json")  # noqa: S108 - where the old system's compose file mounts the key
SECRETS = frozenset({"AUTH_PASSWORD", "JWT_SECRET", "GATE_PRIVATE_KEY", "DATABASE_URL", "REDIS_URL", "METRICS_TOKEN"})
OLD = {
    "DISPATCHER_URL": "there is one service now; use PUBLIC_URL",
    "DISPATCHER_PORT": "there is one service now; use PORT",
    "FRONTEND_PORT": "there is one service now; use PORT",
    "GCE_COMFYUI_URL": "the address follows from COMFYUI_DOMAIN or the machine's IP; COMFYUI_URL overrides it",
    "COMFYUI_AUTH_USER": "ComfyUI is behind the app's login now; remove it",
    "COMFYUI_AUTH_PASS": "ComfyUI is behind the app's login now; remove it",
    "SERVICE_ACCOUNT_KEY": "it counts only if it names a key file; use GOOGLE_APPLICATION_CREDENTIALS",
    "GCP_CREDENTIALS_PATH": "it counts only if it names a key file; use GOOGLE_APPLICATION_CREDENTIALS",
}
# Accepted so that a deployment can be written down whole; nobody may rely on them before they work.
NOT_YET = {
    "BUDGET_MONTHLY": "nothing stops the machine when the money is spent",
}

Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(check.members)]
Names = Annotated[tuple[str, ...], BeforeValidator(check.members)]
Zone = Annotated[str, check.zone_shape]


def _setting(meaning: str, default: object = ..., *, shown: str = "", **limits: Any) -> Any:
    """Describe a variable; `shown` is its default in words, where the value itself doesn't tell."""
    return Field(default, description=meaning, json_schema_extra={"shown": shown}, **limits)


class Settings(BaseModel):
    """What the process was told, checked. A field is its variable in lower case; units are in names or meanings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    auth_password: Annotated[SecretStr, AfterValidator(check.password)] = _setting(
        "login password, at least 12 characters, or its argon2 hash (in `.env` in single quotes, or compose expands "
        "its `$`: prefer `AUTH_PASSWORD_FILE`)"
    )
    jwt_secret: Annotated[Secrets, AfterValidator(check.signing_secrets)] = _setting(
        "signs sessions, at least 32 bytes without a comma (`openssl rand -hex 32`); several, comma separated, while "
        "rotating: the first signs, all verify"
    )
    port: int = _setting("TCP port on which the app listens, 1 to 65535", 3000, ge=1, le=65535)
    public_url: Annotated[str, AfterValidator(check.public_url)] = _setting(
        "the app's own origin as browsers see it, without a path", "", shown="http://localhost:$PORT"
    )
    trusted_proxy_hops: int = _setting(
        "number of proxies in front of the app whose `X-Forwarded-For` is believed, 0 to 10", 0, ge=0, le=10
    )
    gcp_project: Annotated[str, check.project_shape, AfterValidator(check.project)] = _setting(
        "id of the Google Cloud project that holds the machine"
    )
    gce_instance: Annotated[str, check.instance_shape] = _setting("name of the machine", "comfyui-gpu")
    gce_zone: Zone = _setting("the machine's zone", "us-central1-a")
    gce_zones: Annotated[tuple[Zone, ...], BeforeValidator(check.members), AfterValidator(check.zones)] = _setting(
        "candidate zones in order, comma separated; a machine of the same name is used in each", (), shown="`GCE_ZONE`"
    )
    google_application_credentials: Annotated[Path | None, AfterValidator(check.key_file)] = _setting(
        "service account key file",
        None,
        shown=f"`{OLD_CREDENTIALS_MOUNT}` if there, else Application Default Credentials",
    )
    compute_endpoint: Annotated[str | None, AfterValidator(check.endpoint)] = _setting(
        "origin of another Compute Engine endpoint, such as the demo's", None, shown="Google's"
    )
    startup_script_url: Annotated[str | None, check.stored_file] = _setting(
        "`gs://` or `https://` address of the host bundle", None, shown="the bundle goes inline into `startup-script`"
    )
    comfyui_domain: Annotated[str | None, AfterValidator(check.domain)] = _setting(
        "host name of ComfyUI; same-site with `PUBLIC_URL` to be framed by every browser",
        None,
        shown="none: plain HTTP",
    )
    ssl_email: Annotated[str | None, check.email_shape] = _setting("address given to Let's Encrypt", None)
    cf_cert_path: Annotated[str | None, check.stored_file] = _setting(
        "`gs://` or `https://` address of a Cloudflare origin certificate; goes with `CF_KEY_PATH`", None
    )
    cf_key_path: Annotated[str | None, check.stored_file, AfterValidator(check.stored_key)] = _setting(
        "`gs://` or `https://` address of that certificate's key", None
    )
    allowed_ip: Annotated[Names, AfterValidator(check.networks)] = _setting(
        "addresses or networks that may reach ComfyUI, comma separated", (), shown="everybody"
    )
    app_egress_ip: Annotated[Names, AfterValidator(check.networks)] = _setting(
        "addresses or networks from which the app calls the host, let in beside `ALLOWED_IP`, comma separated", ()
    )
    comfyui_url: Annotated[str | None, AfterValidator(check.elsewhere)] = _setting(
        "ComfyUI's origin where it isn't made from domain or IP (the demo, a tunnel)", None
    )
    comfyui_release: Annotated[str | None, check.release_shape] = _setting(
        "tag or branch of ComfyUI that the host runs", None, shown="the host's choice"
    )
    comfyui_git: Annotated[str | None, check.repository_shape] = _setting(
        "`https://` address of the git repository that ComfyUI comes from", None, shown="the host's choice"
    )
    idle_minutes: float = _setting(
        "minutes without activity after which the host stops the machine, fractions allowed, at most 1440",
        30,
        gt=0,
        le=1440,
    )
    session_cap_hours: float = _setting(
        "hours that a machine may run in one go, fractions allowed, at most 720", 10, gt=0, le=720
    )
    drain_minutes: float = _setting(
        "minutes that a stop waits for running and queued prompts, fractions allowed, 0 to 1440", 30, ge=0, le=1440
    )
    budget_monthly: Decimal | None = _setting("US dollars that the machine may cost in a calendar month", None, gt=0)
    gate_private_key: Annotated[Secrets, AfterValidator(check.seeds)] = _setting(
        "Ed25519 key that signs what the app tells the host, PEM or base64 of the seed; several, comma separated, "
        "while rotating: the first signs, the host accepts all",
        (),
        shown="made once and kept in the database",
    )
    database_url: Annotated[SecretStr, AfterValidator(check.database)] = _setting(
        "SQLAlchemy address of the database: SQLite or PostgreSQL", "sqlite:///comfyweb.db"
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(check.redis)] = _setting(
        "address of Redis, for several workers; needs PostgreSQL", None, shown="none: one worker"
    )
    metrics_token: Annotated[SecretStr | None, AfterValidator(check.metrics_token)] = _setting(
        "token by which Prometheus reads `/metrics`, at least 32 bytes (`openssl rand -hex 32`)",
        None,
        shown="none: there are no metrics",
    )
    log_format: Literal["text", "json"] = _setting(
        "how the log is written: `text`, or `json` for one object a line (docs/watching.md)", "text"
    )
    demo_comfyui_url: Annotated[str | None, AfterValidator(check.elsewhere)] = _setting(
        "origin of a real ComfyUI to put into the demo", None, shown="a stand-in"
    )
    warnings: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def comfyui_address(self) -> str:
        """ComfyUI's origin, or nothing while it follows from the machine's IP."""
        return self.comfyui_url or (f"https://{self.comfyui_domain}" if self.comfyui_domain else "")

    @property
    def same_site(self) -> bool:
        """Whether browsers count the page and ComfyUI as one site: the same scheme, and names of one domain."""
        page, comfyui = self.public_url, self.comfyui_address
        schemes = page.partition(":")[0], comfyui.partition(":")[0]
        return schemes[0] == schemes[1] and check.site(check.host_of(page)) == check.site(check.host_of(comfyui))

    @property
    def framing_doubt(self) -> str:
        """Why some browsers, or all, won't show ComfyUI inside the page at a known https address; else nothing."""
        if not self.comfyui_address.startswith("https://"):
            return ""
        if not self.public_url.startswith("https://"):
            return (
                "PUBLIC_URL is not https, so ComfyUI opens in a tab of its own: its login can't be kept inside the "
                "page. An https proxy in front of the app changes that."
            )
        if self.same_site:
            return ""
        return (
            f"{self.public_url} and {self.comfyui_address} are not one site, so browsers that block the storage of "
            "other sites don't run ComfyUI inside the page; there it opens in a tab of its own. Two names of one "
            "domain, such as https://app.example.com and comfy.example.com, work everywhere."
        )

    def origins(self, request_host: str = "") -> frozenset[str]:
        """Return the origins that are the app's own, for a request with this Host header.

        On loopback these are the three names of this machine, on PORT and on the port of the Host header: a container's
        port is often published under another number. A foreign Host adds no foreign name.
        """
        scheme, _, rest = self.public_url.partition("://")
        if (host := check.host_of(self.public_url)) not in check.LOOPBACK:
            return frozenset({self.public_url})
        asked = re.fullmatch(r"[^/@]*?(?::([0-9]{1,5}))?", request_host)
        ports = {int(rest[len(host) + 1 :] or 0)} | ({int(asked[1] or 0)} if request_host and asked else set[int]())
        return frozenset(check.write_origin(scheme, name, port) for name in check.LOOPBACK for port in ports)


class SettingsError(Exception):
    """The settings can't be used. `problems` has one sentence per variable; none of them shows a value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def variables() -> tuple[str, ...]:
    """Return the names of all variables, in the order of the documents."""
    return tuple(name.upper() for name in Settings.model_fields if name != "warnings")


def load(environ: Mapping[str, str], dotenv: Path | None) -> Settings:
    """Read the settings from the environment and, where it is silent, from `.env`; a missing `.env` is no error.

    An empty value counts as unset. A secret may instead lie in the file that NAME_FILE names.
    Raises SettingsError with everything that is wrong.
    """
    problems: dict[str, str] = {}
    written = _read_dotenv(dotenv, problems) if dotenv else {}
    values = written | {name: value for name, value in environ.items() if value.strip()}
    values = {name: value for name, value in values.items() if value.strip()}
    given = {name: values[name] if name in SECRETS else values[name].strip() for name in variables() if name in values}
    for name in sorted(name for name in SECRETS if f"{name}_FILE" in values):
        if name in given:
            problems[name] = f"{name} and {name}_FILE are both set; leave one of them out."
        else:
            given[name] = _read_secret(name, Path(values[f"{name}_FILE"].strip()), problems)
    if credentials := _old_credentials(values):
        given.setdefault("GOOGLE_APPLICATION_CREDENTIALS", credentials)
    known = {*variables(), *OLD, *(f"{name}_FILE" for name in SECRETS)}
    warnings = [f"{name} belongs to the system before comfyweb: {use}." for name, use in OLD.items() if name in values]
    warnings += [f"{name} in .env is no setting and is ignored." for name in written if name not in known]
    try:
        settings = Settings.model_validate({name.lower(): value for name, value in given.items()})
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False, include_input=False):
            name = str(error["loc"][0]).upper()
            problems.setdefault(
                name, _sentence(name, error["type"], str(error.get("ctx", {}).get("error", error["msg"])))
            )
        settings = None
    if problems or settings is None:
        raise SettingsError(problems.values())
    return settings.model_copy(update={"warnings": (*warnings, *_doubts(settings, values))})


def of_process() -> Settings:
    """Read the settings of this process; `.env` may be another file, or none when COMFYWEB_ENV_FILE is empty.

    Raises SettingsError.
    """
    return load(os.environ, dotenv_of_process())


def dotenv_of_process() -> Path | None:
    """Return which `.env` this process reads."""
    named = os.environ.get("COMFYWEB_ENV_FILE", ".env")
    return Path(named) if named else None


def _sentence(name: str, kind: str, message: str) -> str:
    meaning = Settings.model_fields[name.lower()].description
    if kind == "missing":
        return f"{name} is not set. It is: {meaning}."
    if kind == "value_error":
        return f"{name} {message}."
    return f"{name} is wrong: {message[0].lower()}{message[1:]}. It is: {meaning}."


def _read_dotenv(path: Path, problems: dict[str, str]) -> dict[str, str]:
    """Read NAME=value lines. `#` begins a comment at the start of a line and after a blank; quotes keep it all."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        problems[".env"] = ".env can't be read as a text file in UTF-8; repair it or its permissions."
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate((line.strip() for line in lines), 1):
        parts = re.fullmatch(
            r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|((?![\"']).*?))(?:(?:(?<=\s)|\s+)#.*)?", line
        )
        if parts:
            found[parts[1]] = next((part for part in parts.groups()[1:] if part is not None), "")
        elif line and not line.startswith("#"):
            problems[f".env:{number}"] = f".env line {number} is not NAME=value, or its quotes don't match; correct it."
    return found


def _read_secret(name: str, path: Path, problems: dict[str, str]) -> str:
    """Return the file's text without the line end that editors add."""
    try:
        if text := path.read_text("utf-8").rstrip("\r\n"):
            return text
        problems[name] = f"{name}_FILE names an empty file; write the secret into it."
    except (OSError, ValueError):
        problems[name] = f"{name}_FILE names a file that can't be read; mount it there, or set {name}."
    return ""


def _old_credentials(values: Mapping[str, str]) -> str | None:
    """Return the key file that the old system's settings lead to.

    One that merely lies at the old place is for Google: an emulator on this computer gets only what is named for it.
    """
    emulated = values.get("COMPUTE_ENDPOINT", "").strip().lower().startswith("http://")
    mount = None if emulated else str(OLD_CREDENTIALS_MOUNT)
    for path in (values.get("GCP_CREDENTIALS_PATH"), values.get("SERVICE_ACCOUNT_KEY"), mount):
        try:
            if path and Path(path).is_file():
                return path
        except OSError:  # a key pasted instead of its path is too long for a file name
            continue
    return None


def _doubts(settings: Settings, values: Mapping[str, str]) -> Iterable[str]:
    """Say what may be meant but is seldom right, and what does nothing yet."""
    for name, so in NOT_YET.items():
        if values.get(name):
            yield f"{name} is not in force yet: {so}."
    if settings.public_url.startswith("https://") and not settings.trusted_proxy_hops:
        yield (
            "PUBLIC_URL is https, so a proxy stands in front, but TRUSTED_PROXY_HOPS is 0: all visitors count as one "
            "address, and ten wrong passwords lock everybody out for ten minutes. Set it to the number of proxies."
        )
    zone, *others = settings.gce_zones
    if others:
        yield f"Only the first of GCE_ZONES, {zone}, is used yet."
    if values.get("GCE_ZONE", zone).strip() not in settings.gce_zones:
        yield "GCE_ZONE is not among GCE_ZONES and is ignored."
    if settings.comfyui_domain and not settings.ssl_email and not settings.cf_cert_path:
        yield "COMFYUI_DOMAIN has no certificate: set SSL_EMAIL (Let's Encrypt), or CF_CERT_PATH and CF_KEY_PATH."
    if settings.framing_doubt:
        yield settings.framing_doubt


def reference() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `comfyweb/settings.py` by `reference()`; `.env.example` has the same in a form to copy.",
        "",
        "They come from the environment and, where it is silent, from `.env` in the working directory. An empty value",
        "counts as unset. Values in `.env` are taken as they are, `$` included; ` #` begins a comment outside quotes.",
        f"May lie in a file that NAME`_FILE` names: {', '.join(f'`{n}`' for n in variables() if n in SECRETS)}.",
        "",
        "| name | meaning | default |",
        "|---|---|---|",
    ]
    for name in variables():
        field = Settings.model_fields[name.lower()]
        default = "**required**" if field.is_required() else _shown_default(field)
        lines.append(f"| `{name}` | {field.description} | {default} |")
    lines += ["", "Accepted, and not in force yet (a warning says so):", "", "| name | until then |", "|---|---|"]
    lines += [f"| `{name}` | {so} |" for name, so in NOT_YET.items()]
    lines += ["", "Of the system before comfyweb, accepted with a warning each:", "", "| name | instead |", "|---|---|"]
    lines += [f"| `{name}` | {use} |" for name, use in OLD.items()]
    return "\n".join(lines) + "\n"


def _shown_default(field: FieldInfo) -> str:
    shown = cast("dict[str, str]", field.json_schema_extra)["shown"]
    return shown or ("none" if field.default in {None, ()} else str(field.default))
