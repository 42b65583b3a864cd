"""Suggestions for a name that is no setting: true ones, or none."""

import pytest

from pyro_vae.runs import read_preset, settings_parser

NEAR = {
    "--lr": "; the nearest is '--training.optimizer.lr'",
    "--training.lr": "; the nearest is '--training.optimizer.lr'",
    "--seed": "; the nearest is '--data.seed' or '--training.seed'",
    "--hidden": "; the nearest is '--vae.decoder.hidden' or '--vae.encoder.hidden'",
    "--batch_size": "; the nearest is '--training.batches.size'",
    "--batch-size": "; the nearest is '--training.batches.size'",
    "--epochs": "; the nearest is '--training.epochs'",
    "--Training.Epochs": "; the nearest is '--training.epochs'",
    "--optim": "; the nearest is '--training.optimizer'",
    "--vae.latent_dims": "; the nearest is '--vae.latent_dim'",
}
FAR = [
    "--learning_rate",
    "--out",
    "--zzz",
    "-v",
    "--",
    "--num_rows",
    "--gpu",
    "--name",
    "-x",
]


@pytest.fixture(scope="module")
def parser():
    defaults, _ = read_preset("digits")
    return settings_parser(defaults)


@pytest.mark.parametrize("name", [*NEAR, *FAR])
def test_a_name_that_is_no_setting_is_told_the_nearest_or_none(parser, name):
    with pytest.raises(ValueError, match="is no setting") as caught:
        parser.parse_args([name, "1"])
    known = "; known are config, vae, data, training, logging, device"
    assert str(caught.value) == f"'{name}' is no setting{NEAR.get(name, known)}."


EPOCHS = "known are epochs, batches, optimizer, "


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--training.learning_rate", "1"], f"'--training.learning_rate' is no setting; {EPOCHS}"),
        (["--training", "{a: 1}"], f"'training.a' is no setting; {EPOCHS}"),
        (["--config", "training: {rate: 1}"], f"'training.rate' is no setting; {EPOCHS}"),
        (["--config", "my.yaml"], rf"'training.rate' is no setting; {EPOCHS}.* \(in my.yaml\)\.$"),
        (["--config", "bad.yaml"], r"'training.epochs' accepts .*, got x \(in bad.yaml\)\.$"),
        (["--vae.encoder.zzz", "1"], "'vae.encoder.zzz' is no setting; known are hidden, act"),
        (
            ["--training.kl_schedule", "LinearCapacity", "--training.kl_schedule.capacity", "3"],
            "'training.kl_schedule.capacity' is no setting; known are last, epochs",
        ),
        (["onehot"], "'onehot' is one argument too many"),
        (["--device", "cpu", "real"], "'real' is one argument too many"),
        (["--nothing.at.all", "1"], r"'--nothing.at.all' is no setting\.$"),
        (["--device", "--more"], "'--device' needs a value, got none before --more: join a"),
        (["--device", "--training.seed", "3"], r"'--device' needs a value, got none\.$"),
        (["--training.optimizer", "lambda p: p"], "A setting must have a name without spaces"),
        (["--training.objective", "Trace_MMD"], "cannot be Trace_MMD in settings, since its arg"),
        (
            ["--training.scheduler=MultiStepLR", "--training.scheduler.milestones=5,10"],
            r"'training.scheduler.milestones' accepts a list such as \[5, 10\], got 5,10",
        ),
        (
            ["--training.scheduler=LambdaLR", "--training.scheduler.lr_lambda=lambda e: e"],
            "lr_lambda' accepts the import path of a class whose objects can be called or a list",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_error_of_a_wrong_command_line_tells_a_way_out(
    parser, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("training: {rate: 0.01}")
    (tmp_path / "bad.yaml").write_text("training: {epochs: x}")
    with pytest.raises(ValueError, match=sentence):
        parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x.npy", "x.npy, which holds data: name data by --data.source ArrayFile --data.source.p"),
        ("x.NPZ", "x.NPZ, which holds data"),
        ("run/metrics.json", "run/metrics.json: those of this run are in run/settings.yaml"),
        ("run/best.pt", "run/best.pt: those of this run are in run/settings.yaml"),
        ("run", "got the folder run: a run goes on by --resume --run run"),
        ("folder", r"got the folder folder\.$"),
        ("digit", "got digit; the nearest is 'digits'"),
    ],
)
def test_a_preset_that_is_something_else_is_told_a_way_out(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    for file in ("x.npy", "x.NPZ", "run/metrics.json", "run/best.pt", "run/run.json"):
        (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match=sentence):
        read_preset(name)
