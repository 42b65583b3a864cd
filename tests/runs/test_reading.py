"""Files of settings: UTF-8 on every machine, and one sentence for each that is no tree of settings."""

import locale

import pytest

from pyro_vae.runs import read_preset, settings_parser

WRONG = [
    (b"- 1\n", "must hold a tree of settings, got list"),
    (b"", "must hold a tree of settings, got nothing"),
    (b"hello\n", "must hold a tree of settings, got str"),
    (b"training:\n\tepochs: 1\n", r"is damaged: found character '\\t' .* in line 2, column 1"),
    (b"training: {epochs: 1\n", "is damaged: expected ',' or '}'.* in line 2, column 1"),
    ("training: {}\n".encode("utf-16"), "must be text in UTF-8, got other bytes"),
    ("# é\ntraining: {}\n".encode("latin-1"), "must be text in UTF-8, got other bytes"),
    (bytes(range(256)), "must be text in UTF-8|is damaged"),
    (b"training: [1, 2]\n", "'training' in .* must be a group of settings, got list"),
    (b"data: 3\n", "'data' in .* must be a group of settings, got int"),
    (b"vae:\n", "'vae' in .* must be a group of settings, got NoneType"),
    (b"training: {}\ntraining: {}\n", "'training' stands twice in line 2, column 1"),
    (b"training:\n  seed: 1\n  seed: 2\n", "'seed' stands twice in line 3, column 3"),
    (
        b"training:\n  epoks: 1\n",
        "'training.epoks' is no setting; the nearest is 'training.epochs'",
    ),
    (
        b"training: {optimizer: {class_path: Adam, lr: 0.1}}\n",
        "'training.optimizer' in .* of its class by name under init_args, got lr beside class_path",
    ),
    (
        b"vae: {prior: {class_path: VampPrior, init_args: [3]}}\n",
        r"'vae.prior' in .* of its class by name under init_args, got \[3\]",
    ),
    (
        b"a: [1, {b: {init_args: {c: {class_path: D, e: 1, f: 2}}}}]\n",
        r"'a\[1\].b.c' in .* got e, f beside class_path",
    ),
]


def parser():
    defaults, _ = read_preset("digits")
    return settings_parser(defaults)


@pytest.mark.parametrize(("content", "sentence"), WRONG)
def test_a_file_that_is_no_tree_of_settings_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        parser().parse_args(["--config", str(tmp_path / "mine.yaml")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--config", "--training", "--vae", "--data"])
@pytest.mark.parametrize("value", ["", "3", "null", "none.yaml", "[1, 2]", "{a: 1", "."])
def test_a_value_that_is_no_group_is_one_sentence(option, value):
    with pytest.raises(ValueError, match=f"'?{option[2:]}'?|must be a file") as caught:
        parser().parse_args([option, value])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_is_read_in_utf_8_in_every_locale(tmp_path, monkeypatch):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "ascii")
    (tmp_path / "mine.yaml").write_bytes(
        "# −é\ndata:\n  source:\n    class_path: ArrayFile\n    init_args:\n      path: é.npy\n".encode()
    )
    read = parser().parse_args(["--config", str(tmp_path / "mine.yaml")])
    assert read.data.source.init_args.path == "é.npy"
