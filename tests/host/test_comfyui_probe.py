"""Looking at ComfyUI: what it says is told, and whatever else it does is silence, in bounded time."""

from collections.abc import Iterator

import pytest

from tests.host.surroundings import Peer, comfyui, has
from vm_setup.base.comfyui import Look, Probe, Reached
from vm_setup.host.messages import Current


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = comfyui(running=1, pending=2)
    yield made
    made.close()


def probe(peer: Peer, seconds: float = 5.0) -> Probe:
    return Probe(peer.url, now=lambda: 100.0, seconds=seconds)


def test_it_tells_the_queue_and_the_version(peer: Peer) -> None:
    look = probe(peer).look()
    assert look == Look(began=100.0, reached=Reached.ANSWERED, running=1, pending=2, version="0.33.0", ended=[])


RUNS = {"prompt_id": "p-1", "node": "KSampler", "percent": 42.5}


def test_it_tells_how_far_the_running_prompt_is(peer: Peer) -> None:
    peer.answers["/comfyweb/current"] = RUNS
    assert probe(peer).look().current == Current(prompt_id="p-1", node="KSampler", percent=42.5)
    has(peer, running=0, pending=0)
    assert probe(peer).look().current is None


@pytest.mark.parametrize("node", ["KSampler (Efficient)", "Power Lora Loader (rgthree)", "图像缩放"])
def test_a_node_may_have_any_name(peer: Peer, node: str) -> None:
    peer.answers["/comfyweb/current"] = RUNS | {"node": node}
    assert probe(peer).look().current == Current(prompt_id="p-1", node=node, percent=42.5)


@pytest.mark.parametrize(
    "answer", [{}, [], "x", RUNS | {"percent": "half"}, RUNS | {"node": 5}, RUNS | {"prompt_id": "p" * 500}]
)
def test_where_that_can_not_be_told_the_queue_is_told_all_the_same(peer: Peer, answer: object) -> None:
    peer.answers["/comfyweb/current"] = answer
    look = probe(peer).look()
    assert (look.reached, look.running, look.current) == (Reached.ANSWERED, 1, None)


@pytest.mark.parametrize(("said", "told"), [(-3, 0.0), (1e9, 100.0)])
def test_no_percentage_beyond_what_there_can_be(peer: Peer, said: float, told: float) -> None:
    peer.answers["/comfyweb/current"] = RUNS | {"percent": said}
    look = probe(peer).look()
    assert look.current is not None
    assert look.current.percent == told


def test_where_nobody_listens_it_is_refused(peer: Peer) -> None:
    peer.close()
    assert probe(peer).look() == Look(began=100.0, reached=Reached.REFUSED, why="nobody listens")


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_what_is_too_slow_is_silent(peer: Peer, mode: str) -> None:
    peer.mode = mode
    assert probe(peer, seconds=0.2).look().reached is Reached.SILENT


@pytest.mark.parametrize("mode", ["html", "error", "truncated"])
def test_what_makes_no_sense_is_silent(peer: Peer, mode: str) -> None:
    peer.mode = mode
    look = probe(peer).look()
    assert (look.reached, look.jobs) == (Reached.SILENT, None)
    assert look.why


@pytest.mark.parametrize("answer", [[], "x", 5, {}, {"queue_running": 1, "queue_pending": []}])
def test_a_queue_of_another_shape_is_silent(peer: Peer, answer: object) -> None:
    peer.answers["/queue"] = answer
    assert probe(peer).look().reached is Reached.SILENT


def test_a_queue_too_long_to_read_is_counted_elsewhere(peer: Peer) -> None:
    has(peer, running=1, pending=40)
    peer.mode = "huge"
    look = probe(peer).look()
    assert (look.reached, look.running, look.pending) == (Reached.ANSWERED, 1, 40)


@pytest.mark.parametrize("answer", [{}, {"exec_info": {"queue_remaining": "many"}}, {"exec_info": 3}])
def test_and_where_that_makes_no_sense_it_is_silent(peer: Peer, answer: object) -> None:
    peer.mode, peer.answers["/prompt"] = "huge", answer
    assert probe(peer).look().reached is Reached.SILENT


def test_it_names_the_jobs_that_are_over(peer: Peer) -> None:
    over = {"id": "a", "execution_end_time": 1795478400000}
    peer.answers["/api/jobs"] = {"jobs": [over, {"id": "b", "status": "pending"}, 5, {"execution_end_time": 1}]}
    assert probe(peer).look().ended == ["a@1795478400000"]


@pytest.mark.parametrize("answer", [None, [], {"jobs": "x"}])
def test_one_without_a_list_of_jobs_is_fine(peer: Peer, answer: object) -> None:
    peer.answers["/api/jobs"] = answer
    look = probe(peer).look()
    assert look.reached is Reached.ANSWERED
    assert not look.ended


def test_it_asks_for_that_list_less_often_than_for_the_queue(peer: Peer) -> None:
    looking = probe(peer)
    for _ in range(10):
        looking.look()
    assert sum(path == "/queue" for path in peer.asked) == 10
    assert sum(path.startswith("/api/jobs") for path in peer.asked) == 2


def test_it_asks_for_the_version_once_and_forgets_it_with_the_process(peer: Peer) -> None:
    looking = probe(peer)
    looking.look()
    peer.answers["/system_stats"] = {"system": {"comfyui_version": "0.34.0"}}
    assert looking.look().version == "0.33.0"
    peer.close()
    assert looking.look().version == ""
