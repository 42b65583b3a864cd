"""Origin of a run: the command, the commit and the device that it was trained with."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

# The version of the code in a folder, without tags and without a lock on the repository.
_GIT = ("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40")
_WITHOUT_TAGS = ("--exclude", "*")
# Seconds to wait for git, which may have a large folder to look at.
_PATIENCE = 10


class Origin(NamedTuple):
    """Facts on how a run came about; each is None if it is not known.

    Arguments:
        command: the command line, quoted for a shell; those that resumed the run follow after `&&`.
        commit: the git commit of the folder that the command was given in, with `-dirty` behind it
            if files have changed since.
        device: the device that trained the VAE.
    """

    command: str | None = None
    commit: str | None = None
    device: str | None = None

    @staticmethod
    def of_process(command: str, device: torch.device) -> "Origin":
        """Return the origin of a run that this process trains.

        Arguments:
            command: the words before the arguments of this process, such as `pyro-vae train`.
            device: the device.
        """
        line = f"{command} {shlex.join(sys.argv[1:])}".strip()
        return Origin(line, commit(Path.cwd()), _named(device))

    def after(self, earlier: str | None) -> "Origin":
        """Return the origin of a run that this one resumes and that had an earlier command."""
        commands = earlier.split(" && ") if earlier else []
        if self.command is not None and commands[-1:] != [self.command]:
            commands.append(self.command)
        return self._replace(command=" && ".join(commands) or None)


def commit(folder: Path) -> str | None:
    """Return the git commit of a folder, or None if it has none or git is not installed."""
    try:
        done = subprocess.run(
            [*_GIT, *_WITHOUT_TAGS],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _named(device: torch.device) -> str:
    """Return a device with the name of its chip, if torch knows that."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"
