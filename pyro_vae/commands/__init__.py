"""Commands of `pyro-vae`, one in each file; `root` finds them by their names."""
