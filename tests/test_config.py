"""Precedence, coercion, strictness and round trips of the configuration."""

import dataclasses

import pytest

from stylenet.config.options import differing_keys, format_options, list_options, type_name
from stylenet.config.training import Config
from stylenet.errors import UsageError

FIXED_NAMES = (
    "run.dir run.seed data.content data.style data.batch_size data.crop_px data.resize_px "
    "data.workers data.cache "
    "train.steps train.init_from train.precision optim.lr loss.content_weight loss.style_weight "
    "encoder.calibrate "
    "tracking.mode tracking.project tracking.group"
)


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_fixed_names_exist():
    assert set(FIXED_NAMES.split()) <= set(list_options(Config))


def test_precedence_default_yaml_command_line(tmp_path):
    path = write(tmp_path, "optim: {lr: 1e-3, lr_decay: 0.5}\nloss.style_weight: 7\n")
    config = Config.load(path, ["optim.lr=0.25"])
    assert (
        config.optim.lr,
        config.optim.lr_decay,
        config.loss.style_weight,
        config.train.steps,
    ) == (0.25, 0.5, 7.0, 160_000)


def test_exponents_without_a_dot_are_numbers(tmp_path):
    assert Config.load(write(tmp_path, "optim: {lr: 1e-4}\ntrain: {steps: 1e5}")).optim.lr == 1e-4
    assert Config.load(None, ["train.steps=1e5"]).train.steps == 100_000
    assert Config.load(None, ["train.steps=160_000"]).train.steps == 160_000


@pytest.mark.parametrize("word", ["no", "off", "n0"])
def test_yaml_words_stay_text_where_text_is_declared(tmp_path, word):
    assert Config.load(write(tmp_path, f"tracking: {{project: {word}}}")).tracking.project == word


@pytest.mark.parametrize(
    "text, value", [("True", True), ("false", False), ("no", False), ("1", True), ("ON", True)]
)
def test_booleans(text, value):
    assert Config.load(None, [f"encoder.calibrate={text}"]).encoder.calibrate is value


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("--loss.style_weight=10", "loss.style_weight", 10.0),
        ("optim.clip_norm=None", "optim.clip_norm", None),
        ("optim.clip_norm=1e-05", "optim.clip_norm", 1e-05),
        ("val.alphas=[0.5, 1]", "val.alphas", [0.5, 1.0]),
        ("loss.style_taps=['relu1_1', \"relu2_1\"]", "loss.style_taps", ["relu1_1", "relu2_1"]),
        ("tracking.notes=a: b # c", "tracking.notes", "a: b # c"),
        ("run.dir=runs/a=b", "run.dir", "runs/a=b"),
        ("decoder.norm=None", "decoder.norm", "none"),
        ("train.steps=12.0", "train.steps", 12),
    ],
)
def test_python_spellings(override, key, value):
    assert Config.load(None, [override]).to_flat()[key] == value


def test_a_section_on_the_command_line_merges(tmp_path):
    path = write(tmp_path, "loss: {style_weight: 3, content_weight: 2}")
    config = Config.load(path, ["loss={style_weight: 5}"])
    assert (config.loss.style_weight, config.loss.content_weight) == (5.0, 2.0)


@pytest.mark.parametrize(
    "override, expected",
    [
        ("optim.lr=fast", "expected float for optim.lr, but 'fast'"),
        ("optim.lr=nan", "expected float for optim.lr"),
        ("train.steps=1.5", "expected int for train.steps"),
        ("train.steps=None", "expected int for train.steps"),
        ("encoder.calibrate=maybe", "expected bool for encoder.calibrate"),
        ("train.precision=fp8", "expected fp32|bf16|fp16 for train.precision"),
        ("loss.style_taps=relu1_1", "expected list of str for loss.style_taps"),
        ("loss.style_taps=[conv1_1]", "loss.style_taps such as"),
        ("loss.style_taps=[", "in brackets"),
        ("loss.style_taps=[relu1_1,relu1_1]", "each tap once"),
        ("loss.style_tap_weights=[1,2]", "4 loss.style_tap_weights"),
        ("loss.style_balance=1.5", "loss.style_balance in [0, 1]"),
        ("loss.gram_balance=-0.1", "loss.gram_balance in [0, 1]"),
        ("loss.lazy_every_steps=0", "loss.lazy_every_steps"),
        ("data.crop_px=600", "data.crop_px of at most data.resize_px=512"),
        ("data.batch_size=0", "data.batch_size above 0"),
        ("loss.tv_weight=-1", "loss.tv_weight of 0 or more"),
        ("val.alphas=[2]", "val.alphas in [0, 1]"),
        ("optim.ema_decay=1", "optim.ema_decay between 0 and 1"),
        ("data.held_out=1", "data.held_out in [0, 1)"),
        ("style_weight=3", "did you mean 'loss.style_weight'?"),
        ("los.style_weigth=3", "did you mean 'loss.style_weight'?"),
        ("--verbose", "expected key=value"),
    ],
)
def test_mistakes_are_named(override, expected):
    with pytest.raises(UsageError) as caught:
        Config.load(None, [override])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("loss: {style_weight: 1}\nloss: {tv_weight: 1}", "loss is repeated"),
        ("loss:\n  tv_weight: 1\n  tv_weight: 2", "tv_weight is repeated"),
        ("loss: {tv_weight: 1}\nloss.tv_weight: 2", "loss.tv_weight is given twice"),
        ("- a", "sections such as"),
        ("loss: [", "does not parse"),
        ("loss: 3", "'loss' is none"),
        ("optim: {lr: {a: 1}}", "expected float for optim.lr"),
    ],
)
def test_yaml_mistakes_are_named(tmp_path, text, expected):
    with pytest.raises(UsageError) as caught:
        Config.load(write(tmp_path, text))
    assert expected in str(caught.value)


def test_missing_file_and_empty_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Config.load(tmp_path / "none.yaml")
    assert Config.load(write(tmp_path, "# nothing\nloss:\n")) == Config()


def test_yaml_round_trip(tmp_path):
    config = Config.load(
        None,
        [
            "tracking.notes=a: 'b' no",
            "val.alphas=[1]",
            "optim.clip_norm=3",
            "tracking.tags=[no, '1']",
        ],
    )
    assert Config.load(write(tmp_path, config.to_yaml())) == config


def test_flat_round_trip_and_differences():
    config = Config.load(None, ["optim.lr=3e-4"])
    assert Config.from_flat(config.to_flat()) == config
    assert differing_keys(Config(), config) == ["optim.lr"]


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.steps = 1


def test_help_lists_every_option_with_type_default_and_meaning():
    text = format_options(Config)
    for option in list_options(Config).values():
        assert f"{option.key}: {type_name(option.type)} = " in text
        assert option.meaning in text


def test_lazy_losses_are_not_alone():
    only = ["loss.content_weight=0", "loss.style_weight=0", "loss.identity_weight=1"]
    Config.load(None, only)
    with pytest.raises(UsageError, match="a loss that every step has, but 2 came"):
        Config.load(None, [*only, "loss.lazy_every_steps=2"])
    Config.load(None, [*only, "loss.lazy_every_steps=2", "loss.tv_weight=1"])
