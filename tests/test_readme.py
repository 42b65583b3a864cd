"""What the README shows runs, in the order in which it is shown."""

import re
import shlex
import sys
from pathlib import Path

import pyro
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
# The counts in the blocks, which are for results that are worth having, and what is enough to run.
FEWER = {
    "epochs=5)": "epochs=1)",
    "epochs=10,": "epochs=2,",
    "num_samples=1000": "num_samples=30",
    "num_samples=500": "num_samples=30",
    "num_samples=50, num_warmup=50": "num_samples=2, num_warmup=2",
    "in range(100)": "in range(10)",
}
COMMANDS = re.findall(r"^python scripts/(\w+)\.py ([^#\n]*)", README, flags=re.MULTILINE)


def test_the_python_blocks_run_one_after_the_other(capsys):
    names = {}
    blocks = BLOCKS
    for count, fewer in FEWER.items():
        assert any(count in block for block in blocks)
        blocks = [block.replace(count, fewer) for block in blocks]
    with pyro.get_param_store().scope():  # an autoguide of the user's leaves its parameters there
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert "log p(x)" in capsys.readouterr().out
    assert names["svi"].how == "traced"
    assert names["images"].shape == (16, 1, 8, 8)
    likelihood = names["LogNormalLikelihood"](names["MLP"](2, [], 3), 3)
    likelihood.initialize_bias(mean := names["torch"].tensor([0.5, 1, 20]))
    names["torch"].testing.assert_close(likelihood(names["torch"].zeros(5, 2)).mean, mean.expand(5, 3))


def test_the_python_example_has_at_most_fifteen_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15


@pytest.mark.parametrize("arguments", [arguments for script, arguments in COMMANDS if script == "train"])
def test_the_training_commands_are_accepted(arguments, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from train import read_settings

    preset, *rest = [*shlex.split(arguments)]
    preset, rest = (preset, rest) if not preset.startswith("-") else ("digits", [preset, *rest])
    settings, text, _ = read_settings(preset, rest)
    assert settings.training.epochs >= 1
    assert "class_path" in text


def test_every_public_part_is_in_the_table():
    import pyro_vae

    for name in pyro_vae.__all__:
        if name.endswith(("Likelihood", "Prior", "Posterior")) and name not in ("Likelihood", "Prior", "Posterior"):
            assert f"`{name}`" in README
