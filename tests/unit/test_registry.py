from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import overt
from overt import clock
from overt.errors import (
    ConfigurationError,
    ModelNotFound,
    PromotionRefused,
    RunNotFound,
    StoreRejected,
    StoreUnavailable,
)
from overt.records import FetchedModel, Metric, ModelVersion, Promotion, RunDetails, RunSummary, StoredDataset
from overt.stores.memory import MemoryStore
from overt.stores.protocols import QueryStore, RegistryStore

DATA = "test#d1"
CONTENT = "0123456789abcdef" * 2


class Readable(MemoryStore):
    """A store whose runs hold nothing, and that knows no registry."""

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        return iter(())

    def read_run(self, run_id: str) -> RunDetails:
        return _details(run_id, ())

    def read_file(self, run_id: str, path: str) -> bytes:
        raise NotImplementedError


class Shelf(Readable):
    """A registry in memory, of versions with scores of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, ModelVersion] = {}
        self.aliases: dict[str, str] = {}
        self.scores: dict[str, list[Metric]] = {}
        self.gone: set[str] = set()
        self.models_gone: set[str] = set()
        self.datasets: dict[str, Sequence[StoredDataset]] = {}
        self.before: Callable[[str, Any], None] = lambda verb, argument: None

    def add(self, *scores: Metric, alias: str | None = None, datasets: Sequence[StoredDataset] = ()) -> str:
        number = str(len(self.versions) + 1)
        self.versions[number] = ModelVersion("fraud", number, f"run{number}", None, created_ms=0)
        self.scores[number] = list(scores)
        self.datasets[f"run{number}"] = datasets
        if alias:
            self.aliases[alias] = number
        return number

    def states(self, version: str) -> list[str]:
        return [made.state for made in self.versions[version].promotions]

    def read_run(self, run_id: str) -> RunDetails:
        if run_id.removeprefix("run") in self.gone:
            raise RunNotFound(run_id)
        names = [score.name for score in self.scores[run_id.removeprefix("run")]]
        return replace(_details(run_id, names), datasets=tuple(self.datasets[run_id]))

    def aliased_run_id(self, model: str, alias: str) -> str:
        raise NotImplementedError

    def register_model(self, run_id: str, model: str, name: str) -> ModelVersion:
        raise NotImplementedError

    def describe_version(self, version: ModelVersion, *, description: str | None, tags: Mapping[str, str]) -> None:
        raise NotImplementedError

    def read_version(self, name: str, which: str) -> ModelVersion:
        number = which if which.isdecimal() else self.aliases.get(which)
        if number not in self.versions:
            raise ModelNotFound(which)
        return self.versions[number]

    def iter_versions(self, name: str) -> Iterator[ModelVersion]:
        return iter(self.versions.values())

    def read_scores(self, version: ModelVersion, metric: str) -> Sequence[Metric]:
        if version.version in self.models_gone:
            raise ModelNotFound("there is no model")
        return [score for score in self.scores[version.version] if score.name == metric]

    def record_promotion(self, promotion: Promotion) -> None:
        self.before("record_promotion", promotion)
        version = self.versions[promotion.version]
        others = [m for m in version.promotions if (m.alias, m.at_ms) != (promotion.alias, promotion.at_ms)]
        self.versions[promotion.version] = replace(version, promotions=(*others, promotion))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.before("set_alias", version)
        self.aliases[alias] = version

    def fetch_model(self, uri: str, folder: Path) -> FetchedModel:
        raise NotImplementedError

    def load_code(self, fetched: FetchedModel, flavor: str) -> Any:
        raise NotImplementedError


_: tuple[QueryStore, RegistryStore] = (Shelf(), Shelf())


def score(value: float, *, name: str = "f1_score", dataset: str | None = DATA, ms: int = 0, step: int = 0) -> Metric:
    return Metric(name, value, step, ms, dataset=dataset)


def _details(run_id: str, metrics: Sequence[str]) -> RunDetails:
    run = RunSummary(run_id, run_id, "fraud", "FINISHED", 0, 1, None, dict.fromkeys(metrics, 0.0), {}, {})
    return RunDetails(run, {}, (), (), ())


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def promote(shelf: Shelf, source: Any = "challenger", **options: Any) -> Promotion:
    return overt.promote("fraud", source, "champion", store=shelf, **{"if_better": "f1_score"} | options)


def test_the_better_one_takes_the_alias_and_the_numbers_are_kept(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")
    made = promote(shelf)
    assert shelf.aliases == {"champion": "2", "challenger": "2"}
    assert shelf.versions["2"].promotions == (made,)
    assert (made.state, made.version, made.replaced) == ("done", "2", "1")
    assert (made.run_id, made.source, made.metric, made.mode) == ("run2", "challenger", "f1_score", "max")
    assert (made.score, made.replaced_score, made.dataset) == (0.9, 0.8, DATA)
    assert "@" in made.by
    assert abs(made.at_ms - clock.now_ms()) < 60_000


def test_a_promotion_says_when_in_iso_form_utc() -> None:
    made = Promotion("m", "1", "champion", "challenger", None, None, "me@here", at_ms=1_700_000_000_123)
    assert made.at == "2023-11-14T22:13:20.123+00:00"


def test_without_a_champion_the_first_one_is_it(shelf: Shelf) -> None:
    shelf.add(score(0.1, dataset=None), alias="challenger")
    made = promote(shelf)
    assert shelf.aliases["champion"] == "1"
    assert (made.replaced, made.score, made.replaced_score) == (None, 0.1, None)


@pytest.mark.parametrize(
    ("challenger", "champion", "said"),
    [
        ([score(0.8)], [score(0.8)], "is no better"),
        ([score(0.7)], [score(0.8)], "is worse: f1_score 0.7, and version 1, which is champion, has 0.8"),
        ([score(math.nan)], [score(0.8)], "is nan, so nobody can tell"),
        ([score(0.9)], [score(math.nan)], "is nan, so nobody can tell"),
        ([score(math.inf)], [score(0.8)], "is inf, so nobody can tell"),
        ([], [score(0.8)], "version 2 of 'fraud' has no 'f1_score'"),
        ([score(0.9)], [], "version 1 of 'fraud' has no 'f1_score'"),
        ([score(0.9, dataset="test#d2")], [score(0.8)], "was taken on test#d2, that of version 1 on test#d1"),
        ([score(0.9, dataset=None)], [score(0.8, dataset=None)], "unknown data"),
        ([score(0.9, dataset="a#"), score(0.9, dataset=None)], [score(0.8, dataset=None)], "nobody can tell"),
    ],
)
def test_what_is_not_better_or_cannot_be_told_moves_nothing(
    shelf: Shelf, challenger: list[Metric], champion: list[Metric], said: str
) -> None:
    shelf.add(*champion, alias="champion")
    shelf.add(*challenger, alias="challenger")
    with pytest.raises(PromotionRefused, match=said):
        promote(shelf)
    assert shelf.aliases["champion"] == "1"
    assert shelf.states("2") == []


@pytest.mark.parametrize("scores", [[], [score(math.nan)]])
def test_a_first_champion_needs_the_score_that_was_named(shelf: Shelf, scores: list[Metric]) -> None:
    shelf.add(*scores, alias="challenger")
    with pytest.raises(PromotionRefused, match="nobody can tell"):
        promote(shelf)
    assert "champion" not in shelf.aliases


@pytest.mark.parametrize("has_champion", [False, True])
def test_a_direction_is_max_or_min(shelf: Shelf, has_champion: bool) -> None:
    shelf.add(score(0.8), alias="champion" if has_champion else None)
    shelf.add(score(0.9), alias="challenger")
    with pytest.raises(ConfigurationError, match="'max' or 'min'"):
        promote(shelf, mode="up")


@pytest.mark.parametrize("metric", ["training_f1_score", "train_loss"])
def test_scores_on_training_data_are_no_criterion(shelf: Shelf, metric: str) -> None:
    shelf.add(score(0.8, name=metric), alias="champion")
    shelf.add(score(0.9, name=metric), alias="challenger")
    with pytest.raises(PromotionRefused, match="held-out"):
        promote(shelf, if_better=metric, mode="max")


def test_lower_is_better_where_the_name_or_the_caller_says_so(shelf: Shelf) -> None:
    shelf.add(score(0.3, name="log_loss"), score(3, name="odd"), alias="champion")
    shelf.add(score(0.2, name="log_loss"), score(2, name="odd"), alias="challenger")
    with pytest.raises(ConfigurationError, match="mode='max' or mode='min'"):
        promote(shelf, if_better="odd")
    with pytest.raises(PromotionRefused, match="is worse"):
        promote(shelf, if_better="log_loss", mode="max")
    assert promote(shelf, if_better="log_loss").mode == "min"
    shelf.aliases["champion"] = "1"
    assert promote(shelf, if_better="odd", mode="min").mode == "min"


def test_the_newest_score_on_each_data_set_counts(shelf: Shelf) -> None:
    shelf.add(score(0.95, ms=1), score(0.8, ms=2), score(0.99, dataset="other#d9", ms=3), alias="champion")
    shelf.add(score(0.9, ms=1), score(0.5, dataset="mine#d7", ms=2), alias="challenger")
    made = promote(shelf)
    assert (made.score, made.replaced_score, made.dataset) == (0.9, 0.8, DATA)


def test_the_newest_score_is_the_one_that_was_recorded_last_whatever_its_step(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.95, ms=1, step=9), score(0.7, ms=2, step=1), alias="challenger")
    with pytest.raises(PromotionRefused, match=r"is worse: f1_score 0\.7,"):
        promote(shelf)


def test_what_further_evaluations_recorded_is_the_same_metric_on_other_data(shelf: Shelf) -> None:
    shelf.add(score(0.8, dataset="test#B"), score(0.7, name="eval_2_f1_score", dataset="test#A"), alias="champion")
    shelf.add(score(0.9, dataset="test#A"), score(0.6, name="eval_3_f1_score", dataset="test#C", ms=1))
    made = promote(shelf, source="2")
    assert (made.metric, made.score, made.replaced_score, made.dataset) == ("f1_score", 0.9, 0.7, "test#A")
    shelf.add(score(0.99, name="val_f1_score", dataset="test#A"), score(0.99, name="eval_2_f1_score_macro"))
    with pytest.raises(PromotionRefused, match="version 3 of 'fraud' has no 'f1_score'"):
        promote(shelf, source="3")


def test_a_version_whose_run_is_gone_is_compared_by_what_its_model_has(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")
    shelf.gone = {"1"}
    assert promote(shelf).state == "done"


def test_data_are_the_same_by_their_digest_whatever_they_are_called(shelf: Shelf) -> None:
    shelf.add(score(0.8, dataset=f"holdout#{CONTENT}"), alias="champion")
    shelf.add(score(0.9, dataset=f"test#{CONTENT}"), alias="challenger")
    assert promote(shelf).state == "done"


def test_a_text_that_is_no_digest_of_the_content_tells_no_data_apart_from_others_of_another_name(shelf: Shelf) -> None:
    shelf.add(score(0.8, dataset="other#2024-06"), alias="champion")
    shelf.add(score(0.9, dataset="holdout#2024-06"), alias="challenger")
    with pytest.raises(PromotionRefused, match="was taken on holdout#2024-06, that of version 1 on other#2024-06"):
        promote(shelf)


@pytest.mark.parametrize("has_champion", [False, True])
def test_a_score_on_what_the_model_was_fitted_to_is_no_criterion_whatever_it_is_called(
    shelf: Shelf, has_champion: bool
) -> None:
    shelf.add(score(0.8), alias="champion" if has_champion else None)
    fitted_to = StoredDataset("train", CONTENT, "training", "{}")
    shelf.add(score(1.0, dataset=f"test#{CONTENT}"), alias="challenger", datasets=[fitted_to])
    with pytest.raises(PromotionRefused, match=rf"only on the data that its model was fitted to \(test#{CONTENT}\)"):
        promote(shelf)
    assert shelf.aliases.get("champion") == ("1" if has_champion else None)
    shelf.scores["2"].append(score(0.9, ms=1))
    assert promote(shelf).score == 0.9


def test_a_version_whose_model_is_gone_is_not_compared(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")
    shelf.models_gone = {"1"}
    with pytest.raises(PromotionRefused, match="the model of version 1 of 'fraud' is gone"):
        promote(shelf)
    assert promote(shelf, if_better=None).state == "done"


def test_without_a_condition_nothing_is_compared(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(alias="challenger")
    made = promote(shelf, if_better=None)
    assert shelf.aliases["champion"] == "2"
    assert (made.metric, made.score, made.replaced) == (None, None, "1")


def test_a_version_may_be_named_by_its_number(shelf: Shelf) -> None:
    shelf.add(score(0.8))
    assert promote(shelf, source="1").source == "1"
    assert shelf.aliases == {"champion": "1"}
    shelf.add(score(0.9))
    assert promote(shelf, source=2).source == "2"


def test_a_version_that_has_the_alias_is_not_promoted_again(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    with pytest.raises(PromotionRefused, match="champion already"):
        promote(shelf, source="1", if_better=None)
    assert shelf.states("1") == []


def test_a_direction_needs_a_metric(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="needs it"):
        promote(shelf, if_better=None, mode="max")


ALIASES = ("", "5", "v5", "V5", "latest", "Latest", "a b", "a@b", "a" * 256, "x\n", 3, ["x"])


@pytest.mark.parametrize("alias", [*ALIASES, None])
def test_what_can_be_no_alias_is_refused_before_anything_is_written(shelf: Shelf, alias: Any) -> None:
    shelf.add(score(0.8))
    with pytest.raises(ConfigurationError, match="`alias` must be a name such as 'champion'"):
        overt.promote("fraud", "1", alias, store=shelf)
    assert shelf.states("1") == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *(({"alias": alias}, "alias") for alias in ALIASES),
        *(({"tags": tags}, "tags") for tags in ({"": "x"}, [("a", 1)], {3: "x"}, {"a//b": 1}, {"a\n": 1}, {"../a": 1})),
        ({"tags": {"a" * 251: 1}}, "tags"),
        ({"description": 3}, "description"),
        ({"tags": {"long": "x" * 100_001}}, "tags"),
        ({"tags": {"nul": "a\0"}}, "tags"),
        ({"tags": {" ": 1}}, "tags"),
        ({"tags": {"overt.promotion.champion.1": "{}"}}, "tags"),
        ({"tags": {"mlflow.user": "ann"}}, "tags"),
        ({"description": "x" * 5_001}, "description"),
        ({"description": "a\0"}, "description"),
        ({"name": "both ' and \""}, "name"),
        *(({"name": name}, "name") for name in ("a\nb", "a\0b", " ", " a", "a" * 251)),
    ],
)
def test_no_version_is_made_if_any_argument_is_none_that_the_registry_takes(
    shelf: Shelf, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}`"):  # the shelf cannot register: it is not asked to
        overt.register("last", **{"name": "fraud"} | given, store=shelf)


@pytest.mark.parametrize("tag", ["a.b-c/d e:f", ".hidden", "팀"])
def test_a_tag_may_be_called_what_mlflow_takes(shelf: Shelf, tag: str) -> None:
    with pytest.raises(RunNotFound):
        overt.register("nobody", "fraud", alias="v5-a", tags={tag: None}, store=shelf)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"source": None}, "source"),
        ({"source": True}, "source"),
        ({"if_better": ["f1_score"]}, "if_better"),
        ({"if_better": ""}, "if_better"),
        ({"name": None}, "name"),
    ],
)
def test_what_promote_does_not_take_is_named(shelf: Shelf, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}` must be"):
        overt.promote(**{"name": "fraud", "source": "1", "alias": "champion"} | given, store=shelf)


def test_a_crash_before_the_move_leaves_a_record_that_claims_nothing(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")

    def crash(verb: str, _: Any) -> None:
        if verb == "set_alias":
            raise StoreUnavailable("gone")

    shelf.before = crash
    with pytest.raises(StoreUnavailable):
        promote(shelf)
    assert shelf.aliases["champion"] == "1"
    assert shelf.states("2") == ["begun"]
    shelf.before = lambda verb, argument: None
    assert promote(shelf).state == "done"
    assert shelf.states("2") == ["begun", "done"]


def test_a_crash_after_the_move_leaves_it_on_record(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")

    def crash(verb: str, argument: Any) -> None:
        if verb == "record_promotion" and argument.state == "done":
            raise StoreUnavailable("gone")

    shelf.before = crash
    with pytest.raises(StoreUnavailable):
        promote(shelf)
    assert shelf.aliases["champion"] == "2"
    assert shelf.states("2") == ["begun"]


def test_who_is_second_does_not_undo_who_was_first(shelf: Shelf) -> None:
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")
    shelf.add(score(0.95))

    def somebody_else_is_first(verb: str, argument: Any) -> None:
        if verb == "record_promotion" and argument.state == "begun":
            shelf.aliases["champion"] = "3"

    shelf.before = somebody_else_is_first
    with pytest.raises(PromotionRefused, match="meanwhile: version 3 has it, and it was compared with version 1"):
        promote(shelf)
    assert shelf.aliases["champion"] == "3"
    assert shelf.states("2") == ["abandoned"]


def test_an_alias_that_the_registry_refuses_is_no_promotion(shelf: Shelf) -> None:
    shelf.add(score(0.9), alias="challenger")

    def refuse(verb: str, _: Any) -> None:
        if verb == "set_alias":
            raise StoreRejected("no such names")

    shelf.before = refuse
    with pytest.raises(StoreRejected):
        promote(shelf)
    assert shelf.states("1") == ["abandoned"]


def test_two_promotions_in_one_millisecond_are_two_records(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 5)
    shelf.add(score(0.8), alias="champion")
    shelf.add(score(0.9), alias="challenger")
    promote(shelf)
    shelf.aliases["champion"] = "1"
    promote(shelf)
    assert [made.at_ms for made in shelf.versions["2"].promotions] == [5, 6]


def test_a_time_that_no_clock_shows_stops_no_promotion(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 5)
    shelf.add(score(0.8))
    forged = Promotion("fraud", "1", "champion", "1", None, None, "me@here", at_ms=99999999999999999)
    shelf.record_promotion(forged)
    assert promote(shelf, source="1").at_ms == 5


@pytest.mark.parametrize("store", ["jsonl:./experiments", "csv:experiments.csv", Readable()])
def test_a_store_without_a_registry_says_what_it_takes(store: Any) -> None:
    if isinstance(store, str):
        with overt.start_run("r", tracker=overt.Tracker(store=store, delivery="inline")):
            pass
    for call in (
        lambda: overt.register("last", "fraud", store=store),
        lambda: overt.promote("fraud", "a", "b", store=store),
        lambda: overt.load_model("fraud@champion", store=store),
    ):
        with pytest.raises(ConfigurationError, match="registered models need an MLflow store"):
            call()


@pytest.mark.parametrize("names", [{"name": ""}, {"name": 3}, {"name": "m", "model": ""}])
def test_a_registered_model_has_a_name(shelf: Shelf, names: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be a name"):
        overt.register("last", **names, store=shelf)


def test_trusted_types_are_several(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="sequence"):
        overt.load_model("m@a", trusted_types="sklearn.X", store=shelf)
