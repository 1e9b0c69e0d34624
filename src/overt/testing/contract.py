"""What every store promises, as tests that an adapter inherits: one class, one fixture and one function to read back.

The tests speak of what was recorded, never of how a store spells it. Reading back restores the recorded form (original
names, whole texts, infinities); if that cannot be done from what the store holds, something was lost on the way in.
"""
# ruff: noqa: D102  a test's name is its docstring, here as in tests/

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest

from overt import clock
from overt.errors import StoreRejected, StoreUnavailable
from overt.records import (
    Artifact,
    Attempt,
    Batchable,
    Blob,
    Dataset,
    EndStatus,
    Metric,
    Model,
    Param,
    RunSpec,
    Status,
    Tag,
)
from overt.stores.protocols import JoinableStore, ModelStore, ResumableStore, Store

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point of a metric as it was recorded."""

    name: str
    step: int
    time_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a store holds of one run, in the words in which it was recorded.

    Attributes
    ----------
    params, drifted : mapping
        First value of each param, whole; and the last value of those that changed afterwards.
    points : tuple
        In any order.
    datasets : frozenset
        ``(name, digest, context)`` of each.
    models : mapping
        Name to the URI that loads it; empty where the store knows no models.
    parent_id : str or None
        The store's id of the run that this one is nested in.
    """

    name: str
    experiment: str
    status: Status
    started_ms: int
    ended_ms: int | None
    params: Mapping[str, str]
    drifted: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[StoredPoint, ...]
    artifacts: Mapping[str, bytes]
    datasets: frozenset[tuple[str, str, str]] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    parent_id: str | None = None

    def series(self, name: str) -> list[tuple[int, int, str]]:
        """Step, time and value of each point of one metric, in order; the value as text, so that NaN equals NaN."""
        return sorted((p.step, p.time_ms, repr(float(p.value))) for p in self.points if p.name == name)


Verb = Literal["create_run", "log_batch", "log_artifacts", "finish", "log_model"]
Call = tuple[Verb, tuple[Any, ...]]


class StoreContract:
    """Tests of the :class:`~overt.stores.protocols.Store` protocol, to be inherited.

    Give a ``store`` fixture and :meth:`read`; override :meth:`reopened` if a second object can stand for the same
    place, as it does after a courier has died.

    Examples
    --------
    ::

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store(self, tmp_path):
                return MyStore(tmp_path)

            def read(self, store, run_id):
                return StoredRun(...)

            def reopened(self, store):
                return MyStore(store.path)
    """

    @pytest.fixture
    def store(self) -> Store:
        """Give the store under test; the records of earlier tests may still be in it."""
        raise NotImplementedError("override the `store` fixture: it gives the store under test")

    def read(self, store: Any, run_id: str) -> StoredRun:
        """Give what the store holds of a run."""
        raise NotImplementedError("override `read`: it gives what the store holds of a run")

    def reopened(self, store: Any) -> Store:
        """Give another object on the same place, that remembers nothing; by default the same one."""
        return store  # type: ignore[no-any-return]

    # -- create_run ----------------------------------------------------------------------------------------------------

    def test_it_conforms_to_the_protocol(self, store: Store) -> None:
        assert isinstance(store, Store)

    def test_a_run_is_created_as_specified(self, store: Store) -> None:
        spec = _spec("실험 하나", tags={"team": "비전", "mlflow.user": "mina"})
        stored = self.read(store, store.create_run(spec))
        assert (stored.name, stored.experiment, stored.started_ms) == (spec.name, spec.experiment, spec.started_ms)
        assert stored.tags.items() >= dict(spec.tags).items()
        assert (stored.status, stored.ended_ms) == ("RUNNING", None)

    def test_a_known_key_finds_its_run(self, store: Store) -> None:
        spec = _spec()
        run_id = store.create_run(spec)
        assert store.create_run(spec) == run_id
        assert self.reopened(store).create_run(spec) == run_id

    def test_equal_names_with_different_keys_are_different_runs(self, store: Store) -> None:
        assert store.create_run(_spec("same")) != store.create_run(_spec("same"))

    def test_finding_an_ended_run_leaves_it_ended(self, store: Store) -> None:
        spec = _spec()
        run_id = store.create_run(spec)
        store.finish(run_id, "FAILED", NOW_MS + 5)
        self.reopened(store).create_run(spec)
        stored = self.read(store, run_id)
        assert (stored.status, stored.ended_ms) == ("FAILED", NOW_MS + 5)

    def test_a_nested_run_names_its_parent(self, store: Store) -> None:
        parent = _spec("parent")
        parent_id = store.create_run(parent)
        child_id = self.reopened(store).create_run(replace(_spec("child"), parent_key=parent.key))
        assert self.read(store, child_id).parent_id == parent_id

    def test_a_nested_run_names_a_parent_in_another_experiment_that_was_created_before_it(self, store: Store) -> None:
        parent = replace(_spec("parent"), experiment=f"parents {clock.new_key()}")
        parent_id = store.create_run(parent)
        child_id = store.create_run(replace(_spec("child"), parent_key=parent.key))
        assert self.read(store, child_id).parent_id == parent_id

    def test_a_joined_run_keeps_what_its_caller_put_there(self, store: Store) -> None:
        if not isinstance(store, JoinableStore):
            pytest.skip("this store has no runs that somebody else started")
        callers = store.create_run(_spec("the caller's"))
        store.log_batch(callers, [Param("lr", "0.1")])
        joined = self.reopened(store).create_run(replace(_spec("ours"), joined_run_id=callers))
        stored = self.read(store, joined)
        assert joined == callers
        assert (stored.name, stored.params, stored.status) == ("the caller's", {"lr": "0.1"}, "RUNNING")
        assert store.is_running(callers)
        store.finish(callers, "FINISHED", NOW_MS)
        assert not store.is_running(callers)

    # -- repetition ----------------------------------------------------------------------------------------------------

    def test_any_call_repeated_at_once_changes_nothing(self, store: Store, tmp_path: Path) -> None:
        for call in _whole_run(store, tmp_path):
            run_id = _do(store, call)
            before = self.read(store, run_id)
            _do(store, call)
            assert _comparable(self.read(store, run_id)) == _comparable(before), call[0]

    def test_a_run_replayed_from_its_beginning_changes_nothing(self, store: Store, tmp_path: Path) -> None:
        calls = _whole_run(store, tmp_path)
        run_id = max(_do(store, call) for call in calls)
        before = self.read(store, run_id)
        another = self.reopened(store)
        for call in calls:
            _do(another, call)
        assert _comparable(self.read(store, run_id)) == _comparable(before)

    def test_any_call_repeated_after_the_last_changes_nothing(self, store: Store, tmp_path: Path) -> None:
        calls = [call for call in _whole_run(store, tmp_path) if call[0] != "log_batch"]  # later tags replace earlier
        run_id = max(_do(store, call) for call in calls)
        before = self.read(store, run_id)
        for call in calls:
            _do(self.reopened(store), call)
            assert _comparable(self.read(store, run_id)) == _comparable(before), call[0]

    def test_a_batch_split_elsewhere_gives_the_same_run(self, store: Store) -> None:
        whole, split = store.create_run(_spec()), store.create_run(_spec())
        records = _batch()
        store.log_batch(whole, records)
        for record in records:
            self.reopened(store).log_batch(split, [record])
        stored, expected = self.read(store, split), self.read(store, whole)
        assert stored.params == expected.params
        assert stored.drifted == expected.drifted
        assert stored.datasets == expected.datasets
        assert _comparable(stored)["points"] == _comparable(expected)["points"]

    # -- order ---------------------------------------------------------------------------------------------------------

    def test_a_later_tag_replaces_an_earlier_one(self, store: Store) -> None:
        run_id = store.create_run(_spec(tags={"stage": "zero"}))
        store.log_batch(run_id, [Tag("stage", "one"), Tag("stage", "two")])
        assert self.read(store, run_id).tags["stage"] == "two"
        store.log_batch(run_id, [Tag("stage", "three")])
        assert self.read(store, run_id).tags["stage"] == "three"

    def test_interleaved_runs_stay_apart(self, store: Store, tmp_path: Path) -> None:
        runs = [store.create_run(_spec()) for _ in range(3)]
        for step in range(4):
            for number, run_id in enumerate(runs):
                store.log_batch(run_id, [_metric("loss", number, step=step), Param("number", str(number))])
        for number, run_id in enumerate(runs):
            store.log_artifacts(run_id, _folder(tmp_path / str(number), {"number.txt": str(number).encode()}))
        for number, run_id in enumerate(runs):
            stored = self.read(store, run_id)
            assert {point.value for point in stored.points} == {float(number)}
            assert (stored.params, len(stored.points)) == ({"number": str(number)}, 4)
            assert stored.artifacts["number.txt"] == str(number).encode()

    # -- ending --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_the_ending_is_the_recorded_one(self, store: Store, status: EndStatus) -> None:
        run_id = store.create_run(_spec())
        store.finish(run_id, status, NOW_MS + 123_456)
        stored = self.read(store, run_id)
        assert (stored.status, stored.ended_ms) == (status, NOW_MS + 123_456)

    def test_records_after_the_end_arrive_and_leave_it_as_it_was(self, store: Store, tmp_path: Path) -> None:
        spec = _spec()
        run_id = store.create_run(spec)
        store.finish(run_id, "FINISHED", NOW_MS + 9)
        late = self.reopened(store)
        assert late.create_run(spec) == run_id
        late.log_batch(run_id, [_metric("f1_score", 0.5), Param("late", "yes"), Tag("late", "yes"), _dataset("test")])
        late.log_artifacts(run_id, _folder(tmp_path / "files", {"late.txt": b"late"}))
        stored = self.read(store, run_id)
        assert (stored.status, stored.ended_ms) == ("FINISHED", NOW_MS + 9)
        assert (stored.params["late"], stored.tags["late"], stored.artifacts["late.txt"]) == ("yes", "yes", b"late")
        assert [point.name for point in stored.points] == ["f1_score"]
        assert len(stored.datasets) == 1

    # -- attempts ------------------------------------------------------------------------------------------------------

    def test_an_ended_run_goes_on_in_another_attempt_and_ends_again(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.finish(run_id, "KILLED", NOW_MS + 9)
        late = _resumable(self.reopened(store))
        assert list(late.attempt_starts(run_id)) == []
        late.begin_attempt(run_id, Attempt(2, NOW_MS + 20))
        late.begin_attempt(run_id, Attempt(2, NOW_MS + 20))
        assert self.read(store, run_id).status == "RUNNING"
        assert list(_resumable(self.reopened(store)).attempt_starts(run_id)) == [NOW_MS + 20]
        store.finish(run_id, "FINISHED", NOW_MS + 30)
        stored = self.read(store, run_id)
        assert (stored.status, stored.ended_ms) == ("FINISHED", NOW_MS + 30)

    @pytest.mark.parametrize("name", ["loss", "mAP@0.5", "x" * 300])
    def test_every_point_of_a_series_can_be_asked_for(self, store: Store, name: str) -> None:
        run_id = store.create_run(_spec())
        points = [_metric(name, step / 4, step=step, ms=NOW_MS + step) for step in range(3)]
        store.log_batch(run_id, [*points, _metric("other", 1.0)])
        found = _resumable(self.reopened(store)).iter_points(run_id, name)
        assert sorted(found, key=lambda point: point.step) == points
        assert list(_resumable(store).iter_points(run_id, "absent")) == []

    # -- params and tags -----------------------------------------------------------------------------------------------

    def test_an_empty_batch_is_no_trouble(self, store: Store) -> None:
        store.log_batch(store.create_run(_spec()), [])

    def test_an_over_long_param_can_be_read_whole(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        texts = {"long": "긴 값 " * 20_000, "longer": "x" * 300_000, "short": "1", "empty": ""}
        store.log_batch(run_id, [Param(name, text) for name, text in texts.items()])
        assert self.read(store, run_id).params == texts

    def test_over_long_params_of_different_batches_can_be_read_whole(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        texts = {name: name * 9_000 for name in "abc"}
        for name, text in texts.items():
            self.reopened(store).log_batch(run_id, [Param(name, text)])
        assert self.read(store, run_id).params == texts

    def test_an_over_long_tag_can_be_read_whole(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [Tag("long", "표 " * 50_000)])
        assert self.read(store, run_id).tags["long"] == "표 " * 50_000

    def test_an_over_long_tag_of_the_start_can_be_read_whole(self, store: Store) -> None:
        run_id = store.create_run(_spec(tags={"mlflow.note.content": "note " * 5_000}))
        assert self.read(store, run_id).tags["mlflow.note.content"] == "note " * 5_000

    def test_more_params_and_tags_than_a_call_takes_arrive(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        params = {f"param_{number}": str(number) for number in range(350)}
        tags = {f"tag_{number}": str(number) for number in range(350)}
        store.log_batch(run_id, [*(Param(*item) for item in params.items()), *(Tag(*item) for item in tags.items())])
        stored = self.read(store, run_id)
        assert stored.params == params
        assert stored.tags.items() >= tags.items()

    def test_many_long_params_of_wide_characters_arrive(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        params = {f"설정_{number}": "가나다라" * 1_400 for number in range(120)}
        store.log_batch(run_id, [Param(*item) for item in params.items()])
        assert self.read(store, run_id).params == params

    def test_a_changed_param_keeps_its_first_value_and_shows_its_last(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [Param("lr", "0.1"), Param("depth", "3"), Param("lr", "0.01")])
        self.reopened(store).log_batch(run_id, [Param("lr", "0.001"), _metric("loss", 1.0)])
        stored = self.read(store, run_id)
        assert stored.params == {"lr": "0.1", "depth": "3"}
        assert stored.drifted == {"lr": "0.001"}
        assert len(stored.points) == 1

    def test_a_changed_over_long_param_is_not_lost(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [Param("layers", "a" * 7_000)])
        store.log_batch(run_id, [Param("layers", "a" * 7_000 + "b")])
        stored = self.read(store, run_id)
        assert stored.params == {"layers": "a" * 7_000}
        assert stored.drifted == {"layers": "a" * 7_000 + "b"}

    # -- metrics -------------------------------------------------------------------------------------------------------

    def test_every_point_of_a_series_arrives(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        points = [_metric("loss", 1 / (step + 1), step=step, ms=NOW_MS + step // 7) for step in range(2_300)]
        store.log_batch(run_id, points)
        stored = self.read(store, run_id).series("loss")
        assert stored == sorted((point.step, point.time_ms, repr(point.value)) for point in points)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1e-308, 1.7e308, 2.0**53])
    def test_a_value_is_recognisable(self, store: Store, value: float) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_metric("x", 0.25), _metric("x", value, step=1), _metric("x", 0.5, step=2)])
        assert [text for _, _, text in self.read(store, run_id).series("x")] == ["0.25", repr(value), "0.5"]

    def test_values_that_are_no_numbers_are_recognisable_beside_each_other(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        values = [math.nan, -math.inf, math.inf, math.nan, math.inf]
        for step, value in enumerate(values):
            self.reopened(store).log_batch(run_id, [_metric("x", value, step=step)])
        assert [text for _, _, text in self.read(store, run_id).series("x")] == list(map(repr, values))

    def test_points_equal_in_value_are_kept_apart_by_step_or_time(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        points = [_metric("x", 0.5, step=step, ms=NOW_MS + ms) for step in range(3) for ms in range(3)]
        store.log_batch(run_id, points)
        assert len(self.read(store, run_id).series("x")) == 9

    def test_the_same_point_twice_in_a_batch_is_one(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_metric("x", 0.5), _metric("nan", math.nan)] * 2)
        assert len(self.read(store, run_id).points) == 2

    def test_negative_and_large_steps_arrive(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_metric("x", 0.5, step=step) for step in (-3, 0, 2**40)])
        assert [step for step, _, _ in self.read(store, run_id).series("x")] == [-3, 0, 2**40]

    @pytest.mark.parametrize(
        "name",
        [
            *("mAP@0.5", "a//b", "..", ".", "/", "a/", "/a", "a/../b", "a b", "a:b", ":at:", "x:at@", "정확도/검증"),
            *("%", "f(x)=1|2,3", "line\nbreak", "tab\t", "emoji 🎯", "quote'\"`", "back\\slash", "#", "ü" * 300),
            *("n" * 300, "n" * 299 + "@", "n" * 250),
        ],
    )
    def test_a_name_is_recognisable(self, store: Store, name: str) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_metric(name, 0.5), Param(name, "1"), Tag(name, "2"), _metric("plain", 1.0)])
        stored = self.read(store, run_id)
        assert {point.name for point in stored.points} == {name, "plain"}
        assert stored.params == {name: "1"}
        assert stored.tags[name] == "2"

    def test_long_names_that_begin_alike_are_told_apart(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        names = {"layer." * 60 + suffix for suffix in ("weight", "bias")}
        store.log_batch(run_id, [_metric(name, 0.5) for name in names])
        assert {point.name for point in self.read(store, run_id).points} == names

    # -- datasets ------------------------------------------------------------------------------------------------------

    def test_datasets_arrive_with_their_contexts(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_dataset("train", digest="d1"), _dataset("test", digest="d2")])
        assert self.read(store, run_id).datasets == {("data", "d1", "train"), ("data", "d2", "test")}

    def test_one_dataset_in_two_contexts_shows_both(self, store: Store) -> None:
        run_id = store.create_run(_spec())
        store.log_batch(run_id, [_dataset("train"), _dataset("test")])
        self.reopened(store).log_batch(run_id, [_dataset("again")])
        stored = self.read(store, run_id)
        assert stored.datasets == {("data", "d1", context) for context in ("train", "test", "again")}

    # -- artifacts -----------------------------------------------------------------------------------------------------

    def test_files_arrive_at_their_paths(self, store: Store, tmp_path: Path) -> None:
        run_id = store.create_run(_spec())
        files = {"a.txt": b"a", "deep/er/b.bin": bytes(range(256)), "empty": b"", "한글 이름.csv": "값".encode()}
        store.log_artifacts(run_id, _folder(tmp_path / "files", files))
        assert self.read(store, run_id).artifacts == files

    def test_a_later_file_replaces_an_earlier_one_and_no_other(self, store: Store, tmp_path: Path) -> None:
        run_id = store.create_run(_spec())
        store.log_artifacts(run_id, _folder(tmp_path / "1", {"a.txt": b"one, and long", "sub/b.txt": b"b"}))
        store.log_artifacts(run_id, _folder(tmp_path / "2", {"a.txt": b"two"}))
        assert self.read(store, run_id).artifacts == {"a.txt": b"two", "sub/b.txt": b"b"}

    def test_the_folder_given_is_not_changed(self, store: Store, tmp_path: Path) -> None:
        folder = _folder(tmp_path / "files", {"a.txt": b"a", "sub/b.txt": b"b"})
        store.log_artifacts(store.create_run(_spec()), folder)
        assert {path.name for path in folder.rglob("*")} == {"a.txt", "sub", "b.txt"}

    # -- models --------------------------------------------------------------------------------------------------------

    def test_a_model_arrives_once_with_its_files(self, store: Store, tmp_path: Path) -> None:
        if not isinstance(store, ModelStore):
            pytest.skip("this store knows no models; their files arrive as artifacts")
        run_id = store.create_run(_spec())
        model = _model("model", _MODEL_FILES)
        first = store.log_model(run_id, model, _folder(tmp_path / "1", _MODEL_FILES))
        again = self.reopened(store)
        assert isinstance(again, ModelStore)
        assert again.log_model(run_id, model, _folder(tmp_path / "2", _MODEL_FILES)) == first
        stored = self.read(store, run_id)
        assert stored.models == {"model": first}
        assert stored.artifacts.items() >= {f"model/{path}": data for path, data in _MODEL_FILES.items()}.items()

    def test_two_models_of_a_run_are_two(self, store: Store, tmp_path: Path) -> None:
        if not isinstance(store, ModelStore):
            pytest.skip("this store knows no models; their files arrive as artifacts")
        run_id = store.create_run(_spec())
        for name in ("model", "best"):
            store.log_model(run_id, _model(name, _MODEL_FILES), _folder(tmp_path / name, _MODEL_FILES))
        assert len(set(self.read(store, run_id).models.values())) == 2

    # -- errors --------------------------------------------------------------------------------------------------------

    def test_nothing_but_the_two_errors_escapes_for_an_unknown_run(self, store: Store, tmp_path: Path) -> None:
        nowhere = clock.new_key()
        folder = _folder(tmp_path / "files", {"a.txt": b"a"})
        calls: list[Call] = [
            ("log_batch", (nowhere, [_metric("x", 1.0)])),
            ("log_artifacts", (nowhere, folder)),
            ("finish", (nowhere, "FINISHED", NOW_MS)),
        ]
        for call in calls:
            with pytest.raises((StoreRejected, StoreUnavailable)):
                _do(store, call)

    def test_a_store_closes(self, store: Store) -> None:
        another = self.reopened(store)
        if another is store:
            pytest.skip("closing would end the store under test")
        another.close()


# -- material ----------------------------------------------------------------------------------------------------------

_MODEL_FILES = {"model.pkl": b"bytes that nobody opens", "code/a.txt": b"a"}


def _spec(name: str = "run", *, tags: Mapping[str, str] | None = None) -> RunSpec:
    return RunSpec(clock.new_key(), name, "overt store contract", NOW_MS, tags=tags or {})


def _resumable(store: Store) -> ResumableStore:
    if not isinstance(store, ResumableStore):
        pytest.skip("runs of this store cannot go on after their end")
    return store


def _metric(name: str, value: float, *, step: int = 0, ms: int = NOW_MS) -> Metric:
    return Metric(name, float(value), step, ms)


def _dataset(context: str, *, digest: str = "d1") -> Dataset:
    schema = '{"mlflow_colspec": [{"type": "double", "name": "x", "required": true}]}'
    return Dataset("data", digest, context, "code", '{"tags": {}}', schema, '{"num_rows": 3}')


def _model(name: str, files: Mapping[str, bytes]) -> Model:
    return Model(
        name=name,
        flavor="sklearn",
        files=tuple(Artifact(path, Blob(sha256(data).hexdigest(), len(data))) for path, data in files.items()),
        flavor_fields={"pickled_model": "model.pkl", "sklearn_version": "1.9.1", "serialization_format": "cloudpickle"},
        pyfunc_fields={"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
        signature=None,
        example=None,
        requirements=("scikit-learn==1.9.1",),
        python_version="3.11.9",
        created_ms=NOW_MS,
        model_type="classifier",
    )


def _batch() -> list[Batchable]:
    return [
        *(_metric("loss", 1 / (step + 1), step=step) for step in range(5)),
        *(_metric(name, value) for name, value in (("nan", math.nan), ("inf", math.inf), ("mAP@0.5", -math.inf))),
        *(Param("lr", "0.1"), Param("lr", "0.2"), Param("long", "x" * 9_000), Param("한글", "값"), Param("a//b", "1")),
        *(Tag("stage", "one"), Tag("stage", "two"), Tag("long", "y" * 9_000)),
        *(_dataset("train"), _dataset("test"), _dataset("test", digest="d2")),
    ]


def _whole_run(store: Store, folder: Path) -> list[Call]:
    """The calls of a run's whole life, as its courier would make them."""
    spec = _spec("whole", tags={"from": "start"})
    run_id = store.create_run(spec)
    calls: list[Call] = [
        ("create_run", (spec,)),
        ("log_batch", (run_id, _batch())),
        ("log_artifacts", (run_id, _folder(folder / "first", {"a.txt": b"one", "sub/b.txt": b"b"}))),
        ("log_batch", (run_id, [Tag("stage", "three"), Param("lr", "0.3"), _metric("f1_score", 0.5)])),
        ("log_artifacts", (run_id, _folder(folder / "second", {"c.txt": b"c"}))),
        ("finish", (run_id, "FINISHED", NOW_MS + 60_000)),
    ]
    if isinstance(store, ModelStore):
        model = _model("model", _MODEL_FILES)
        calls.insert(4, ("log_model", (run_id, model, _folder(folder / "model", _MODEL_FILES))))
    return calls


def _do(store: Store, call: Call) -> str:
    """Make a call; the id of the run that it concerns."""
    verb, arguments = call
    result = getattr(store, verb)(*arguments)
    return str(result if verb == "create_run" else arguments[0])


def _comparable(stored: StoredRun) -> dict[str, Any]:
    """``stored`` as something in which NaN equals NaN and the order of points does not matter."""
    names: Sequence[str] = [name for name in StoredRun.__dataclass_fields__ if name != "points"]
    points = sorted((p.name, p.step, p.time_ms, repr(float(p.value))) for p in stored.points)
    return {name: getattr(stored, name) for name in names} | {"points": points}


def _folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
