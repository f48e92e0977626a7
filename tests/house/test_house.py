"""The figures of the tree, the form of messages, and the wording of what readers see."""

from __future__ import annotations

import ast

import pytest

from tests.house.figures import LATE_IMPORTS, Figure, House, figures
from tests.house.prose import messages, phrases, wrong_form

HOUSE = House.read()


@pytest.mark.parametrize("figure", figures(HOUSE), ids=lambda figure: figure.what)
def test_every_figure_is_kept(figure: Figure) -> None:
    assert figure.kept, f"{figure.what}: {figure.value} of at most {figure.bound}: {figure.which}"


def test_every_late_import_that_has_a_reason_is_still_there() -> None:
    assert set(LATE_IMPORTS) == set(HOUSE.late_imports())


def test_circles_are_found_by_way_of_others() -> None:
    """The house with a third module that closes a circle of two arrows."""
    modules = dict(HOUSE.modules)
    assert HOUSE.circles() == []
    base, user = modules["regroup.errors"], modules["regroup.bank"]
    assert "regroup.errors" in {HOUSE.target(name) for name in user.imports()}
    source = "from regroup.bank import Bank\n"
    closing = type(base)(base.name, base.path)
    closing.__dict__["tree"] = ast.parse(source)
    found = House({**modules, base.name: closing}).circles()
    assert any({"regroup.errors", "regroup.bank"} <= set(circle) for circle in found)


def test_messages_have_one_form() -> None:
    found = [f"{where}: {text}" for where, text in messages() if wrong_form(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("the store has no such element", False),
        ("Ray could not be started", False),
        ("{} is out of range", False),
        ("--k {} is out of range", False),
        ("The store has no such element", True),
        ("the store has no such element.", True),
    ],
)
def test_the_form_itself(text: str, wrong: bool) -> None:
    assert wrong_form(text) is wrong


def test_nothing_says_what_a_reader_would_not_understand() -> None:
    assert list(phrases()) == []
