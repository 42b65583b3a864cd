"""Door of the scripts: imported before what takes long, it makes Ctrl-C one line."""

from pyro_vae.commands.door import run, watch

__all__ = ["run"]

watch()
