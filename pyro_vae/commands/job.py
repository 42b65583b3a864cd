"""Job of `pyro-vae train`: one run that is asked for, checked before it is trained."""

from pathlib import Path
from typing import NamedTuple

import yaml

from pyro_vae.commands.init_from import Start, read_start
from pyro_vae.commands.request import Request, check_resumable, early_options, read_settings
from pyro_vae.runs import RunFolder

# How training ends when it is not interrupted.
_ENDED = ("finished", "stopped early")


class Job(NamedTuple):
    """A training that is asked for.

    Arguments:
        request: the settings and options.
        folder: the run folder.
        resume: True to continue the run in the folder.
        start: the weights that it starts from; None for new ones.
        stored: the settings of the run that is resumed, as YAML; None for a new run.
    """

    request: Request
    folder: RunFolder
    resume: bool = False
    start: Start | None = None
    stored: str | None = None

    def is_done(self) -> bool:
        """Return True if the run was trained to its end with the same settings, and evaluated."""
        is_same = self.request.text == self.stored
        is_evaluated = (self.folder.path / "metrics.json").is_file()
        return is_same and is_evaluated and self.folder.fit().outcome in _ENDED


def read_job(preset: str, arguments: list[str], run: str | Path, resume: bool) -> Job:
    """Read what is asked for, and refuse it if the folder does not suit it. This trains nothing.

    Arguments:
        preset: the name of a preset, or a YAML file.
        arguments: the rest of the command line.
        run: the run folder.
        resume: True to continue the run in the folder.
    """
    early = early_options(arguments)
    if early.resume and early.overwrite:
        raise ValueError("'resume' continues a run and 'overwrite' replaces it: name one.")
    if early.resume and early.init_from is not None and early.seeds is None:
        raise ValueError("'resume' continues a run and 'init_from' begins one: name one.")
    folder = RunFolder(run)
    stored = folder.settings(early.allow) if resume else None
    request = read_settings(preset, arguments, stored)
    folder.check_free(early.overwrite or resume)
    if stored is None:
        start = None if early.init_from is None else read_start(early.init_from, request)
        return Job(request, folder, start=start)
    before = read_settings(preset, [], stored)
    check_resumable(yaml.safe_load(before.text), yaml.safe_load(request.text))
    return Job(request, folder, resume=True, stored=before.text)
