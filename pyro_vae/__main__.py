"""`python -m pyro_vae`, which is the command `pyro-vae`."""

from pyro_vae.commands.root import main

if __name__ == "__main__":
    main()
