"""What is said of an error of other code: one line of it, and the user's line that led to it."""

import warnings

import pytest
import torch

from pyro_vae.engine.failures import first_line, is_raised_by, users_level, users_line

MESSAGES = {
    "shapes do not fit": "shapes do not fit.\nTrace Shapes:\n Param Sites:\n  weight 8 2",
    "one two": "\n  one   two:\n",
    "Error at site 'x': Expected value in support": "Error at site 'x':\nExpected value in support",
    "found invalid values": "found invalid values:\ntensor([[nan, nan],\n        [nan, nan]])",
    "got (str)": "got (str), but expected one of:\n * (int a)\n * (float a)",
    "RuntimeError: no room": "The following operation failed in the TorchScript interpreter.\n"
    "Traceback:\nRuntimeError: no room",
    "RuntimeError": "",
}


def raised(run):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    return caught.value


def generated(source, **names):
    exec(source, names)
    return names["f"]


@pytest.mark.parametrize("line", MESSAGES)
def test_a_message_is_repeated_in_one_line_without_tables(line):
    assert first_line(RuntimeError(MESSAGES[line])) == line


def test_a_long_message_is_cut():
    assert len(first_line(RuntimeError("word " * 1000))) <= 250


def call(function):
    return function(torch.zeros(2, 3))


def test_generated_code_is_known_by_the_line_that_calls_it():
    error = raised(lambda: call(generated("def f(x): return x @ x")))
    assert users_line(error) == f" (test_failures.py, line {call.__code__.co_firstlineno + 1})"


def test_without_any_file_it_is_the_function():
    error = raised(lambda: call(generated("def f(x): return x @ x", __name__="__main__")))
    while error.__traceback__.tb_next is not None:
        error.__traceback__ = error.__traceback__.tb_next
    assert users_line(error) == " (f, line 1)"


def test_libraries_have_no_line_of_the_user():
    error = raised(lambda: torch.distributions.Normal("a", 1.0))
    while "torch" not in error.__traceback__.tb_frame.f_code.co_filename:
        error.__traceback__ = error.__traceback__.tb_next
    assert users_line(error) == ""


def test_a_warning_names_the_users_line():
    with pytest.warns(UserWarning, match="here") as caught:
        warnings.warn("here", stacklevel=users_level())
    assert caught[0].filename == __file__


def test_only_a_raise_statement_counts_as_raised_by_a_package():
    def refuse():
        raise ValueError("no")

    def fail():
        return [][0]

    assert is_raised_by(raised(refuse), __name__.partition(".")[0])
    assert not is_raised_by(raised(refuse), "torch")
    assert not is_raised_by(raised(fail), __name__.partition(".")[0])
