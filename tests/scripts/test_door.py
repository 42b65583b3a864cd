"""The door of the scripts: Ctrl-C during the imports is one line, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyro_vae.commands.root import COMMANDS

SCRIPTS = Path(__file__).parents[2] / "scripts"
OF_COMMANDS = [file for file in SCRIPTS.glob("*.py") if file.stem in COMMANDS]
IN_FOLDER = [
    file
    for file in SCRIPTS.glob("*.py")
    if "__main__" in file.read_text("utf-8") and file not in OF_COMMANDS
]
IMPORTING = """
import os, signal
signal.signal(signal.SIGINT, {handler})
import door
os.kill(os.getpid(), signal.SIGINT)
print("on")
"""


@pytest.mark.parametrize(
    ("handler", "ended"),
    [
        ("signal.default_int_handler", (130, "", "Interrupted.\n")),
        ("signal.SIG_IGN", (0, "on\n", "")),
    ],
)
def test_ctrl_c_during_the_imports_is_one_line_unless_it_is_ignored(handler, ended):
    command = [sys.executable, "-B", "-c", IMPORTING.format(handler=handler)]
    done = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == ended


@pytest.mark.parametrize("script", IN_FOLDER, ids=lambda file: file.stem)
def test_every_script_imports_the_door_before_what_takes_long(script):
    lines = script.read_text("utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    before = imports[: imports.index("import door")]
    assert {line.split()[1].split(".")[0] for line in before} <= sys.stdlib_module_names
    assert "    door.run(main)" in lines


@pytest.mark.parametrize("script", OF_COMMANDS, ids=lambda file: file.stem)
def test_a_script_of_a_command_is_the_command(script):
    lines = [line for line in script.read_text("utf-8").splitlines() if line]
    assert lines[1:] == [
        "from pyro_vae.commands.root import main",
        'if __name__ == "__main__":',
        f'    main("{script.stem}")',
    ]


def test_a_command_imports_nothing_long_before_the_door():
    code = "import sys, pyro_vae.commands.root; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
