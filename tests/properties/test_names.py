from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name, path_not_unique

from overt.stores.mlflow.limits import NAME_CHARACTERS, shortened
from overt.stores.mlflow.names import from_mlflow, is_cut, path_to_mlflow, to_mlflow

PIECES = [*"@%=(),|/.: _-au0123", "at", ":at:", ":u40:", "colon", "..", "//", "\n", "한", "🎯"]
TRICKY = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
NAME = (TRICKY | st.text(st.characters(exclude_categories=["Cs"]))).filter(bool)


@given(NAME)
@example("x:at@")
@example(":at:at:")
@example("::at::")
@example(":u110000:")
@example("..a")
@example("a:b//c")
@example("\n")
@example("a\n")
def test_a_name_comes_back_from_mlflow_as_it_went(name: str) -> None:
    assert from_mlflow(to_mlflow(name, most=10**9)) == name


@given(NAME | st.text(st.sampled_from("n@/.한"), min_size=200, max_size=600))
@example("@" * 249 + "/")
@example("n" * 230 + "/" * 30)
def test_mlflow_takes_every_name(name: str) -> None:
    spelled = to_mlflow(name, NAME_CHARACTERS)
    assert len(spelled) <= NAME_CHARACTERS
    assert not path_not_unique(spelled)
    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(spelled)


@given(
    st.text("abcxyz_0", min_size=1, max_size=250) | st.sampled_from(["loss", "val/loss", "a:b", "정확도", "a.b-c d"])
)
def test_an_ordinary_name_is_left_alone(name: str) -> None:
    assert to_mlflow(name, NAME_CHARACTERS) == name
    assert not is_cut(name, NAME_CHARACTERS)


@given(NAME)
@example("a:u23:1.txt")
@example("a#1.txt")
@example("a:u23%41")
def test_the_name_of_a_file_is_spelled_as_no_other_one(path: str) -> None:
    assert from_mlflow(path_to_mlflow(path)) == path


@given(NAME, NAME)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (to_mlflow(one) == to_mlflow(other)) == (one == other)


@given(st.text())
def test_any_name_that_somebody_else_put_into_mlflow_can_be_read(name: str) -> None:
    assert isinstance(from_mlflow(name), str)


@given(st.text(max_size=300), st.integers(120, 300))
def test_a_text_is_shortened_only_if_it_must_be_and_says_so(text: str, most: int) -> None:
    short = shortened(text, most, whole_in="overt/params.json")
    assert len(short) <= most
    assert short == text if len(text) <= most else "overt/params.json" in short


def test_texts_that_differ_only_behind_the_cut_stay_different() -> None:
    assert shortened("a" * 500 + "b", 120, whole_in="f") != shortened("a" * 500 + "c", 120, whole_in="f")
