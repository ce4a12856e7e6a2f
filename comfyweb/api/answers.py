"""What the API answers when it can; `problems.py` has the rest."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """An answer has these members and no others, and all of them."""

    model_config = ConfigDict(extra="forbid")


class LoggedIn(Answer):
    """A new session."""

    token: str = Field(description="secret; a JWT, but nothing in it is meant for clients")
    expires_at: str = Field(description="RFC 3339, UTC")


class Authenticated(Answer):
    """The session that the token belongs to."""

    authenticated: bool
    expires_at: str = Field(description="RFC 3339, UTC")


class LoggedOut(Answer):
    """A session, or all of them, ended."""

    success: bool
    message: str


class Done(Answer):
    """What was asked is stored or done."""

    success: bool
    message: str = Field(description="for a person")
    status: str = Field(description="Compute Engine's word as last seen, such as RUNNING or TERMINATED; may be empty")


class Ticket(Answer):
    """A way into ComfyUI."""

    url: str = Field(description="open it in a tab within a minute; it works once")


class Alive(Answer):
    """The process answers."""

    status: str


class Ready(Answer):
    """The page can be served."""

    status: str = Field(description="`ok`, or `degraded` while Compute Engine fails")
    dependencies: dict[str, str] = Field(description="`ok` or what is wrong, by the name of each")


def moment(at: datetime) -> str:
    """Write a time as the API does: RFC 3339, UTC, whole seconds."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
