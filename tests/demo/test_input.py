"""Whatever callers send is understood or refused in Google's frame; nothing else comes of it."""

import contextlib
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfyweb.demo.bodies import (
    LONGEST_RUN,
    SHORTEST_RUN,
    fingerprint_of,
    max_run,
    metadata_in,
    object_in,
    permissions_in,
    scheduling_in,
)
from comfyweb.demo.listing import page
from comfyweb.demo.metadata import as_json, as_text, as_text_below, lookup, tree
from comfyweb.demo.model import Refusal
from comfyweb.demo.world import World

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SCHEDULING = st.dictionaries(
    st.sampled_from(["maxRunDuration", "instanceTerminationAction", "onHostMaintenance", "automaticRestart", "x"]),
    ANY_JSON | st.sampled_from(["STOP", "TERMINATE"]) | st.fixed_dictionaries({"seconds": st.integers() | st.text()}),
)
METADATA = st.dictionaries(st.sampled_from(["items", "fingerprint", "kind", "x"]), ANY_JSON)
ITEMS = [{"name": name, "status": "TERMINATED"} for name in "abc"]


@given(st.binary())
def test_any_body_is_an_object_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(object_in(raw), dict)


@given(METADATA)
def test_any_metadata_is_text_by_key_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(Refusal):
        metadata, _ = metadata_in(body)
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())


@given(
    st.dictionaries(st.text(max_size=3), st.text(max_size=3)), st.dictionaries(st.text(max_size=3), st.text(max_size=3))
)
def test_metadata_has_the_same_fingerprint_exactly_when_it_is_the_same(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert (fingerprint_of(one) == fingerprint_of(other)) == (one == other)


@given(SCHEDULING)
def test_any_scheduling_has_a_run_within_googles_limits_or_is_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(Refusal):
        limit = max_run(scheduling_in(body, has_gpu=True))
        assert limit is None or SHORTEST_RUN <= limit <= LONGEST_RUN


@given(st.dictionaries(st.sampled_from(["permissions", "x"]), ANY_JSON))
def test_any_list_of_permissions_is_words_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(Refusal):
        assert all(isinstance(name, str) for name in permissions_in(body))


@given(
    st.dictionaries(
        st.sampled_from(["filter", "maxResults", "pageToken"]),
        st.text() | st.sampled_from(["name=a", "LTU=", "9" * 5000, "MQ==", "2"]),
    )
)
def test_any_query_is_a_page_or_refused(query: dict[str, str]) -> None:
    with contextlib.suppress(Refusal):
        found, _ = page(ITEMS, query)
        assert all(item in ITEMS for item in found)


@given(
    st.lists(
        st.sampled_from(["instance", "attributes", "disks", "0", "7", "name", "x"]) | st.text(max_size=4), max_size=5
    )
)
def test_any_metadata_path_is_found_or_not(path: list[str]) -> None:
    found = lookup(tree(next(iter(World(now=datetime(2026, 1, 1, tzinfo=UTC)).machines.values()))), "/".join(path))
    if found is not None:
        as_json(found, "/".join(path))
        assert as_text(found) or not found
        assert as_text_below(found) or not found
