"""What a visitor is told whom the machine would turn away."""

from datetime import UTC, datetime

from comfyweb.control.visitors import Visitors
from comfyweb.machine.model import MachineMissing, MachineSeen
from tests.control.test_terms import settings

HTTPS = {"PUBLIC_URL": "https://app.example.com", "TRUSTED_PROXY_HOPS": "1"}
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ME = "93.184.216.34"


def machine(**metadata: str) -> MachineSeen:
    return MachineSeen(at=NOW, status="TERMINATED", zone="z", metadata=metadata)


def test_who_is_not_among_those_that_may_come_is_told_what_to_add() -> None:
    visitors = Visitors.of(settings(ALLOWED_IP="8.8.8.8, 9.9.9.0/24", **HTTPS))
    words = visitors.words(ME, None)
    assert words.startswith(f"You would lock yourself out: your address, {ME}, is not in ALLOWED_IP")
    assert f"Add {ME} to it" in words
    assert visitors.words("9.9.9.1", None) == ""


def test_what_somebody_has_put_into_the_metadata_counts_where_the_setting_is_empty() -> None:
    visitors = Visitors.of(settings(**HTTPS))
    assert "is not in allowed_ip in the machine's metadata" in visitors.words(ME, machine(allowed_ip="8.8.8.8"))
    assert visitors.words(ME, machine(allowed_ip=f"8.8.8.8 {ME}")) == ""
    assert visitors.words(ME, machine()) == visitors.words(ME, MachineMissing(at=NOW)) == ""
    set_here = Visitors.of(settings(ALLOWED_IP=ME, **HTTPS))
    assert set_here.words(ME, machine(allowed_ip="8.8.8.8")) == "", "the next start puts the setting there"


def test_a_proxy_that_nobody_told_us_of_is_not_taken_for_the_visitor() -> None:
    assert Visitors.of(settings(ALLOWED_IP="8.8.8.8", PUBLIC_URL="https://app.example.com")).words(ME, None) == ""
    assert Visitors.of(settings(ALLOWED_IP="8.8.8.8")).words(ME, None)
