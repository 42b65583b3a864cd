import copy
import random
import warnings

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyro_vae.engine import Execution, Program
from pyro_vae.engine import program as engine_program
from pyro_vae.support.validation import validating

X = torch.linspace(-1, 1, 12).reshape(4, 3)


class Counted:
    """A program that counts how often its Python runs."""

    def __init__(self, function):
        self.function, self.calls = function, []

    @property
    def runs(self):
        return len(self.calls)

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        return self.function(*args, **kwargs)


def noisy(x, scale=1.0):
    return x + scale * torch.randn(x.shape), None


def repeated(program, *calls):
    """The results of calls, each an (args, kwargs), under one random state, and the random number that follows."""
    torch.manual_seed(1)
    return [program(*args, **kwargs) for args, kwargs in calls], torch.randn(())


def test_every_call_gives_what_the_function_gives_whatever_the_order_of_signatures():
    calls = [
        ((X + step, 2.0), {}) if step % 3 else ((X[:2],), {"scale": torch.tensor(step)})
        for step in range(9)
    ]
    program = Program(noisy)
    torch.testing.assert_close(repeated(program, *calls), repeated(noisy, *calls), rtol=0, atol=0)
    assert program.how == "traced"


def test_python_runs_ever_more_rarely():
    function = Counted(noisy)
    program, runs = Program(function), []
    for _ in range(12):
        program(X)
        runs.append(function.runs)
    assert runs == [
        1,
        3,
        4,
        5,
        5,
        6,
        6,
        6,
        6,
        7,
        7,
        7,
    ]  # as it is; traced and checked; checked at replay 2, 3, 5, 9


OTHER_SIGNATURES = {
    "shape": (X[:2],),
    "strides": (X.T.contiguous().T,),
    "dtype": (X.double(),),
    "a number": (X, 2.0),
    "a number of another type": (X, 1),
    "gradient wanted": (X.clone().requires_grad_(),),
}


@pytest.mark.parametrize("name", OTHER_SIGNATURES)
def test_each_signature_has_a_trace_of_its_own(name):
    function = Counted(noisy)
    program = Program(function)
    for _ in range(4):
        program(X, 1.0)
    before = function.runs
    args = OTHER_SIGNATURES[name]
    torch.testing.assert_close(
        repeated(program, (args, {})), repeated(noisy, (args, {})), rtol=0, atol=0
    )
    assert function.runs == before + 1


def test_one_tensor_passed_twice_is_not_two_tensors():
    program = Program(lambda x, y: (x - 2 * y,))
    for _ in range(4):
        program(X, X)
    torch.testing.assert_close(program(X, X + 1), (X - 2 * (X + 1),))


def test_a_tensor_that_changes_needs_no_other_trace():
    function = Counted(noisy)
    program = Program(function)
    for weight in torch.linspace(0, 1, 20):
        program(X, weight)
    assert len(program._records) == 1


def test_the_modes_of_modules_belong_to_the_signature():
    dropout = nn.Dropout(0.5)
    program = Program(lambda x: (dropout(x),))
    for _ in range(4):
        program(X)
    dropout.eval()
    for _ in range(4):
        assert torch.equal(program(X)[0], X)
    dropout.train()
    assert not torch.equal(program(X)[0], X)


def test_a_parameter_that_is_replaced_or_frozen_is_noticed():
    layer = nn.Linear(3, 2)
    program = Program(lambda x: (layer(x).detach(),), calls=[layer])
    for _ in range(4):
        program(X)
    layer.weight = nn.Parameter(torch.zeros(2, 3))
    torch.testing.assert_close(program(X)[0], layer.bias.detach().expand(4, 2))
    seen = len(program._seen)
    layer.bias.requires_grad_(False)
    program(X)
    assert len(program._seen) == seen + 1


def test_running_statistics_move_once_a_call():
    norms = [nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    program = Program(lambda x: (norms[0](x),), calls=[norms[0]])
    for step in range(6):
        torch.testing.assert_close(program(X + step)[0], norms[1](X + step))
        torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


def plain_with_warning(function, *calls, match):
    program = Program(function, name="SVI")
    with pytest.warns(UserWarning, match=match) as caught:
        results = [program(*args) for args in calls]
    assert len(caught) == 1
    assert program.how.startswith("plain, because")
    return results


def test_a_course_that_depends_on_data_runs_as_written_with_one_warning():
    results = plain_with_warning(
        lambda x: (x if x.sum() > 0 else -x,),
        *[(sign * (X + 1),) for sign in (1, 1, -1, 1, -1)],
        match="SVI runs as it is written, not traced, because its course depends on the value of a tensor",
    )
    assert all(torch.equal(result, X + 1) for (result,) in results)


def test_a_warning_names_the_line_of_the_call():
    program = Program(lambda x: (x if x.sum() > 0 else -x,))
    with pytest.warns(UserWarning, match="runs as it is written") as caught:
        repeated(program, *[((X,), {})] * 2)
    assert caught[0].filename == __file__


def test_an_error_of_the_function_comes_without_a_warning():
    def fail(x, settings):
        raise KeyError("mine")

    # Warnings are errors in these tests.
    with pytest.raises(KeyError, match="mine"):
        Program(fail)(X, Counted(fail))


@validating(True)  # torch.compile switches validation off for the whole process
def test_modules_that_torch_compile_has_made_run_as_they_are():
    layer = nn.Linear(X.shape[1], 3)
    whole = torch.compile(layer.forward, backend="eager")
    compiled = torch.compile(layer, backend="eager")
    for function in (lambda x: (compiled(x),), lambda x: (whole(x),)):
        program = Program(function)
        with pytest.warns(UserWarning, match=r"^The program runs as .* torch.compile") as caught:
            results = [program(X) for _ in range(3)]
        assert len(caught) == 1
        assert "\n" not in str(caught[0].message)
        assert len(str(caught[0].message)) < 150
        for (result,) in results:
            torch.testing.assert_close(result, layer(X))


def test_scripted_modules_are_traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would like to see no new ones
        layer = torch.jit.trace(nn.Linear(X.shape[1], 3), X)
    program = Program(lambda x: (layer(x),), calls=[layer])
    for _ in range(3):
        torch.testing.assert_close(program(X)[0], layer(X))
    assert program.how == "traced"


def test_inference_tensors_are_replayed_too():
    with torch.inference_mode():
        x = X.clone()
    program = Program(lambda x: (x.sin(),))
    results = [program(x) for _ in range(3)]
    assert program.how == "traced"
    assert all(torch.equal(result, X.sin()) for (result,) in results)


@pytest.mark.parametrize("result", [3.0, X, {"x": X}, (3.0,)])
def test_other_results_are_refused(result):
    with pytest.raises(TypeError, match="^'function' must return a tuple of tensors and None, got"):
        Program(lambda x: result)(X)


def test_a_function_with_a_state_of_its_own_is_found_out():
    count = [0]

    def counting(x):
        count[0] += 1
        return (x * count[0],)

    plain_with_warning(
        counting, (X,), (X,), (X,), match="its trace gives other values than the program itself"
    )


def test_a_constant_that_depends_on_the_data_is_found_out_on_other_data():
    signs = {}

    def peeking(x):
        key = x.data_ptr()
        return (x * signs[key],)

    batches = [X.clone(), X.clone(), X + 1]
    signs |= {batch.data_ptr(): sign for batch, sign in zip(batches, (1.0, 1.0, -1.0), strict=True)}
    results = plain_with_warning(
        peeking, *[(batch,) for batch in batches], match="its trace gives other values"
    )
    assert torch.equal(results[2][0], -batches[2])


TOUCHING = {
    "changes its arguments in place": lambda x: (x.add_(0),),
    "draws random numbers with Python's or NumPy's": lambda x: (
        x if random.random() > 0.01 else -x,
    ),
    "draws random numbers with Python's or NumPy's generator": lambda x: (
        x if np.random.rand() > 0.01 else -x,
    ),
}


@pytest.mark.parametrize("reason", TOUCHING)
def test_what_reaches_beyond_tensors_is_run_as_written_from_the_start(reason):
    program = Counted(TOUCHING[reason])
    plain_with_warning(program, *[(X.clone(),)] * 4, match=reason)
    assert program.runs == 4


def test_arguments_that_are_changed_in_place_are_changed_once_however_it_is_to_be_run():
    for execution in (Execution(), Execution(compile=True)):
        program, x = Program(lambda x: (x.mul_(2).sum(),), execution=execution), torch.ones(3)
        with pytest.warns(UserWarning, match="changes its arguments in place"):
            assert [program(x)[0].item() for _ in range(3)] == [6, 12, 24]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Rebinding(Counting):
    def forward(self, x):
        self.steps = self.steps + 1
        return x * self.steps


@pytest.mark.parametrize(
    ("kind", "reason"), [(Counting, "numbers that it reads"), (Rebinding, "replaces its buffers")]
)
def test_a_module_that_counts_its_calls_counts_them_once(kind, reason):
    module = kind()
    program = Program(lambda x: (module(x),), calls=[module])
    with pytest.warns(UserWarning, match=reason):
        results = [program(X)[0] for _ in range(5)]
    torch.testing.assert_close(results, [X * count for count in (1, 2, 3, 4, 5)])


def test_what_no_signature_shows_comes_to_light_before_long():
    settings = deepest = [1.0]
    for _ in range(6):
        settings = [settings]
    program = Program(lambda x: (x * settings[0][0][0][0][0][0][0],))
    for _ in range(6):
        program(X)
    deepest[0] = 2.0
    with pytest.warns(UserWarning, match="its trace gives other values"):
        results = [program(X)[0] for _ in range(6)]
    assert torch.equal(results[-1], 2 * X)


def test_no_thousand_replays_go_by_without_a_comparison(monkeypatch):
    monkeypatch.setattr(engine_program, "_CHECK_EVERY", 20)
    function = Counted(noisy)
    program = Program(function)
    for _ in range(40):
        program(X)
    before = function.runs
    for _ in range(20):
        program(X)
    assert function.runs == before + 1


def test_module_hooks_are_called_at_every_call():
    layer, calls = nn.Linear(3, 2), []
    layer.register_forward_hook(lambda *_: calls.append(1))
    plain_with_warning(
        lambda x: (layer(x).detach(),),
        *[(X,)] * 5,
        match="a Linear has hooks, which a replay would not call",
    )
    assert len(calls) == 5


def test_an_argument_that_is_neither_tensor_nor_plain_value_is_passed_as_it_is():
    class Weight:
        value = 2.0

    (result,) = plain_with_warning(
        lambda x, weight: (weight.value * x,), (X, Weight()), match="is of type Weight"
    )
    assert torch.equal(result[0], 2 * X)


def test_numbers_that_change_all_the_time_stop_being_traced_with_one_warning():
    program = Program(noisy, name="SVI")
    with pytest.warns(
        UserWarning, match="the first 32 signatures.* pass numbers that change .* as tensors"
    ) as caught:
        repeated(program, *[((X, float(step)), {}) for step in range(100)])
    assert len(caught) == 1
    for _ in range(4):
        program(X, 3.0)
    assert program.how == "traced"


def test_effect_handlers_around_a_call_are_met():
    def program(x):
        return (pyro.sample("z", pyro.distributions.Normal(x, 1.0)),)

    replayed = Program(program)
    for _ in range(4):
        replayed(X)
    assert torch.equal(pyro.poutine.condition(replayed, data={"z": X})(X)[0], X)


def test_flags_and_warnings_are_left_as_found():
    filters = copy.copy(warnings.filters)
    program = Program(noisy)
    for _ in range(4):
        program(X)
    assert warnings.filters == filters


@pytest.mark.slow
def test_compiled_it_draws_the_same_numbers_and_rounds_alike():
    calls = [((X + step,), {}) for step in range(4)]
    program = Program(noisy, execution=Execution(compile=True))
    torch.testing.assert_close(
        repeated(program, *calls), repeated(noisy, *calls), rtol=1e-6, atol=1e-6
    )
    assert program.how == "compiled"


def test_only_the_first_signature_is_compiled_at_once():
    program = Program(noisy, execution=Execution(compile=True))
    for rows in (4, 2, 4, 2):
        program(X[:rows])
    assert [record.is_compiled for record in program._records.values()] == [True, False]
    assert program.how == "compiled"


def test_auto_compiles_what_is_called_often(monkeypatch):
    monkeypatch.setattr(
        engine_program, "_seconds_saved", lambda graph: engine_program._COMPILE_SECONDS / 5
    )
    program, how = Program(noisy), []
    for _ in range(8):
        program(X)
        how.append(program.how)
    assert how == ["plain", *["traced"] * 5, *["compiled"] * 2]


def test_without_a_compiler_the_trace_is_replayed_and_it_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    program = Program(noisy, execution=Execution(compile=True))
    calls = [((X + step,), {}) for step in range(4)]
    torch.testing.assert_close(repeated(program, *calls), repeated(noisy, *calls), rtol=0, atol=0)
    assert program.how == "traced (no C++ compiler to compile with)"


def test_what_fails_to_compile_is_replayed_with_a_warning(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr("torch._inductor.compile", fail)
    program = Program(noisy, execution=Execution(compile=True))
    with pytest.warns(
        UserWarning, match="is not compiled but replayed from its trace: out of order"
    ):
        program(X)
    assert program.how == "traced"


def test_what_compiles_to_other_values_is_replayed_with_a_warning(monkeypatch):
    monkeypatch.setattr(
        "torch._inductor.compile",
        lambda run, *_: lambda *inputs: (run(*inputs)[0] * 1.01, None),
    )
    program = Program(noisy, execution=Execution(compile=True))
    with pytest.warns(UserWarning, match="compiled it gives other values"):
        result = program(X)
    torch.manual_seed(0)
    assert torch.equal(result[0], noisy(X)[0])


@pytest.mark.usefixtures("every_product_counts")
def test_bfloat16_products_are_used_from_the_first_call_on():
    weight = torch.randn(3, 3)
    program = Program(lambda x: (x @ weight,), execution=Execution(precision="bfloat16"))
    errors = [(program(X)[0] - X @ weight).abs().max().item() for _ in range(3)]
    assert 0 < errors[0] == errors[1] == errors[2] < 0.02
    assert program.how == "traced, bfloat16 products"


SETTINGS = {
    "'trace' of Execution must be True or False, got 'yes'": {"trace": "yes"},
    "'compile' of Execution must be True, False or 'auto', got 1": {"compile": 1},
    "'compile' of Execution must be True, False or 'auto', got 'always'": {"compile": "always"},
    "'precision' of Execution must be 'float32' or 'bfloat16', got 'half'": {"precision": "half"},
    "'trace' must be True for compile=True, got False": {"trace": False, "compile": True},
    "'trace' must be True for precision='bfloat16', got False": {
        "trace": False,
        "precision": "bfloat16",
    },
}


@pytest.mark.parametrize("message", SETTINGS)
def test_settings_that_do_not_fit_are_refused(message):
    with pytest.raises(ValueError, match=message):
        Execution(**SETTINGS[message])
