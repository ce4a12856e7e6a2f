"""The stand-in runs the host software that its machine's metadata bring."""

from comfyweb.demo.standin_host import HOST_VERSION, Host
from vm_setup.host.messages import Now


def test_it_tells_the_version_of_the_script_that_its_machine_would_have_run() -> None:
    host = Host(boot_id="b", now=lambda: Now(boot=1, wall=1), steps=[])
    host.configure({"startup-script": "#!/bin/bash\n# comfyweb host bundle 1.2+abc\n"}, audience="host:p/z/i")
    assert host.report().host_version == "1.2+abc"
    host.configure({}, audience="host:p/z/i")
    assert host.report().host_version == HOST_VERSION
