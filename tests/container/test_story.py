"""The main job in Chromium, as in `tests/story`, with the demo in a container."""

from collections.abc import Generator

import pytest

from tests.container.docker import PASSWORD, Container, missing, published, told
from tests.launching import free_ports
from tests.story import test_story as story

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]

context = story.context
# In the story's order: each leaves the machine as the next one expects it.
test_work = story.test_log_in_start_work_and_let_it_stop_itself
test_gentle_stop = story.test_a_gentle_stop_waits_for_the_job_and_start_takes_it_back
test_no_free_gpu = story.test_no_free_gpu_is_said_in_plain_words_and_the_next_try_works
test_log_out = story.test_log_out_everyone_reaches_every_tab_and_the_frame


@pytest.fixture(scope="module")
def demo() -> Generator[story.Demo]:
    port = free_ports(3)
    command = ("python", "-m", "comfyweb.demo.launch", "--fast")
    with Container(published(port, 3), *told(PORT=str(port), AUTH_PASSWORD=PASSWORD), command=command) as container:
        container.answers(f"http://localhost:{port}/readyz")
        yield story.Demo(port)
        assert "Traceback" not in container.said
