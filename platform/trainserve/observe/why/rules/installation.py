"""What is installed where the ranks run."""

from __future__ import annotations

from trainserve.observe.why.conditions import both, code, either, reason, says, told
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "package-missing",
        says(r"No module named '?(?P<module>[\w.]+)'?"),
        lambda s: f"{s.who} lacks a Python package: {s.found['module']}",
        lambda s: f"pip install {s.found['module'].split('.')[0]}  (into the Python that trains), then {s.resume()}",
    ),
    Rule(
        "library-broken",
        says(
            r"ImportError: (?P<what>.*(\.so\S*: |undefined symbol|cannot open shared object|wrong ELF class|"
            r"GLIBC\w* |not found|cannot allocate memory in static TLS).*)|(?P<numpy>compiled (using|against) NumPy 1|"
            r"numpy\.dtype size changed|numpy.core.multiarray failed to import|API version 0x)"
        ),
        lambda s: f"a library that {s.who} needs does not fit: {s.found.get('what') or told(s)}",
        lambda s: (
            "pip install 'numpy<2'  (or newer builds of what was compiled against it)"
            if s.found.get("numpy")
            else "reinstall the package together with what it was built for, e.g. torch and torchvision of one release"
        ),
    ),
    Rule(
        "import-error",
        says(r"ImportError: (?P<what>.+)"),
        lambda s: f"{s.who} could not import: {s.found['what']}",
        "install the version that has it (pip show PACKAGE tells which one is there)",
    ),
    Rule(
        "command-not-found",
        either(
            code(127),
            both(reason("ContainerCannotRun", "StartError", "RunContainerError"), says(r"(?i)no such file|not found")),
        ),
        lambda s: f"the pod's command cannot be found: {told(s)}",
        "correct `command` of the container, or use an image that has it",
    ),
    Rule(
        "command-not-executable",
        either(code(126), reason("ContainerCannotRun", "StartError", "RunContainerError")),
        lambda s: f"the pod's command cannot be started: {told(s)}",
        "correct `command` and `workingDir` of the container; a script needs chmod +x and a first line #!",
    ),
)
