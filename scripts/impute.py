"""`pyro-vae impute`, from a checkout."""

from pyro_vae.commands.root import main

if __name__ == "__main__":
    main("impute")
