"""The steps of a boot as they are told: what another program wrote, with ComfyUI's own step as it really is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.boot import Boot, Start, with_comfyui
from vm_setup.host.messages import Step


def row(**more: Any) -> dict[str, Any]:
    return {"name": "disk", "state": "running", "began": 90.0, "seconds": None, "expected_seconds": 2.0, **more}


def read(*rows: object, warnings: list[object] | None = None) -> Boot:
    return Boot.from_json({"steps": list(rows), "warnings": warnings}, now=100)


def test_a_running_steps_seconds_go_on() -> None:
    assert read(row()).steps == [Step(name="disk", state="running", seconds=10.0, expected_seconds=2.0)]


def test_a_step_that_is_over_took_what_it_took() -> None:
    assert read(row(state="done", seconds=1.5)).steps[0].seconds == 1.5


def test_what_makes_no_sense_is_left_out_and_the_rest_is_kept() -> None:
    steps = read(row(name=5), row(state="odd"), row(began=500, seconds="x"), "text", None).steps
    assert [(step.name, step.seconds) for step in steps] == [("disk", None)]


def test_texts_become_one_short_line() -> None:
    boot = read(row(detail="a\nb\x00c" + "x" * 900), warnings=["w\nx", 5, ""])
    assert boot.steps[0].detail.startswith("a b c")
    assert len(boot.steps[0].detail) == 200
    assert boot.warnings == ["w x"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["steps", "warnings", "name", "state", "began", "seconds"]), inner)
    ),
    max_leaves=15,
)


@given(said=JSON)
def test_garbage_is_a_boot_of_which_nothing_is_known(said: object) -> None:
    boot = Boot.from_json(said, now=100)
    assert all(step.state in {"waiting", "running", "done", "failed"} for step in boot.steps)


def comfyui(steps: list[Step], start: Start) -> Step:
    return next(step for step in with_comfyui(steps, start, now=100) if step.name == "comfyui")


def test_comfyui_is_a_step_though_nobody_wrote_it_down_yet() -> None:
    assert comfyui([], Start(expected_seconds=9.0)) == Step(name="comfyui", expected_seconds=9.0)
    running = comfyui([], Start(began=95))
    assert (running.state, running.seconds) == ("running", 5.0)


def test_it_is_done_once_comfyui_has_answered_whatever_the_file_says() -> None:
    for state in ("waiting", "running", "failed"):
        done = comfyui([Step(name="comfyui", state=state)], Start(began=80, answered=88))
        assert (done.state, done.seconds) == ("done", 8.0)


def test_a_file_that_knows_more_is_believed() -> None:
    step = Step(name="comfyui", state="done", seconds=7.0, expected_seconds=6.0)
    assert comfyui([step], Start(began=80, answered=88, expected_seconds=9.0)) == step
    failed = Step(name="comfyui", state="failed", detail="no space")
    assert comfyui([failed], Start(began=80)) == failed
