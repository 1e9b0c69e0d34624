"""Nothing is patched, and importing overt does nothing: seen from fresh processes, attribute by attribute."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)  # a script that imports and uses all of them takes its time on a busy machine

SNAPSHOT = """
    import io, json, sys, warnings

    PATCHABLE = ("sklearn", "mlflow", "matplotlib")


    def snapshot():
        '''Identity of every attribute of every loaded module of theirs, and of every class found in them.'''
        found, kept = {}, []
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in PATCHABLE or module is None:
                continue
            spaces = [(name, vars(module))]
            seen = set()
            while spaces:
                path, space = spaces.pop()
                for key, value in list(space.items()):
                    found[path, key] = id(value)
                    makers = (getattr(value, "__module__", None), type(value).__module__, key)
                    if any(str(maker).strip("_").partition(".")[0] == "overt" for maker in makers):
                        found[path, key] = "overt's own"
                    kept.append(value)  # so that no identity is given away twice
                    if isinstance(value, type) and value not in seen:
                        if str(getattr(value, "__module__", "")).partition(".")[0] in PATCHABLE:
                            seen.add(value)
                            spaces.append((f"{path}.{key}", value.__dict__))
        return found, kept


    def changes(before, after):
        # `_cache` and its like are the libraries' own; a submodule that somebody imports appears in its package
        return sorted(
            f"{path}:{key}"
            for (path, key), identity in before.items()
            if after.get((path, key)) != identity
        ) + sorted(f"{path}:{key}" for (path, key), identity in after.items() if identity == "overt's own")
"""

USE = """
    warnings.simplefilter("ignore")
    import matplotlib, matplotlib.figure, matplotlib.pyplot
    import mlflow, mlflow.sklearn, mlflow.pyfunc, mlflow.models
    import sklearn, sklearn.ensemble, sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing, sklearn.cluster
    import sklearn.datasets, sklearn.metrics, sklearn.model_selection, sklearn.utils.estimator_checks
    from mlflow import MlflowClient

    X, y = sklearn.datasets.make_classification(60, 5, random_state=0)


    def warm_up():
        # Whatever the libraries themselves fill in on first use (lazy modules, caches) is filled in before.
        for method in ("predict", "predict_proba"):
            for estimator in (sklearn.linear_model.LogisticRegression(), sklearn.ensemble.RandomForestClassifier(3)):
                fitted = sklearn.pipeline.make_pipeline(sklearn.preprocessing.StandardScaler(), estimator).fit(X, y)
                sklearn.model_selection.cross_validate(fitted, X, y, cv=2)
                getattr(fitted, method)(X)
        MlflowClient().search_experiments()
        mlflow.get_tracking_uri()
        mlflow.active_run()
        sklearn.utils.estimator_html_repr(fitted)
        figure = matplotlib.figure.Figure()
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o-", label="line")
        axes.bar([0, 1], [1, 2])
        axes.scatter([0, 1], [1, 0])
        axes.imshow([[0, 1], [1, 0]])
        axes.legend()
        figure.savefig(io.BytesIO(), format="png")


    warm_up()
    before, kept = snapshot()
    import overt

    seen = {"count": len(before)}
    for delivery in ("process", "inline"):
        overt.configure(delivery=delivery)
        with overt.start_run("block", experiment="e") as run:
            run.log_metric("loss", 1.0)
            figure = matplotlib.figure.Figure()
            run.log_figure(figure, "mine.png")
            pipeline = sklearn.pipeline.make_pipeline(
                sklearn.preprocessing.StandardScaler(), sklearn.ensemble.RandomForestClassifier(3)
            )
            model = overt.TrackedEstimator(pipeline, cv=2).fit(X, y)
            model.evaluate(X, y)
            overt.TrackedEstimator(sklearn.cluster.KMeans(2, n_init=1), run_name="clusters").fit(X)
        mlflow.sklearn.load_model(model.run_.model_uri).predict(X)
        assert overt.wait(30)
        after, kept_too = snapshot()
        seen[delivery] = changes(before, after)

    module = sklearn.linear_model
    fit = module.LogisticRegression.fit
    module.LogisticRegression.fit = lambda self, X, y: fit(self, X, y)
    module._overt = 1
    module.tracked = overt.TrackedEstimator
    module.log = overt.start_run
    after, kept_too = snapshot()
    seen["broken"] = changes(before, after)
    print(json.dumps(seen))
"""


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )


def test_every_attribute_of_the_libraries_is_the_same_object_as_before(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is delivered; and a method that is patched in the end, or an attribute of ours, is seen to be."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    done = run(textwrap.dedent(SNAPSHOT) + textwrap.dedent(USE))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["count"] > 20_000, "the snapshot has seen too little to mean anything"
    assert seen["process"] == [], "\n".join(seen["process"])
    assert seen["inline"] == [], "\n".join(seen["inline"])
    for name in (".LogisticRegression:fit", ":_overt", ":tracked", ":log"):
        assert f"sklearn.linear_model{name}" in seen["broken"]


IMPORT = """
    import os, sys, threading
    before = set(sys.modules)
    import overt
    _ = overt.__all__, dir(overt)
    third = sorted(
        name for name in set(sys.modules) - before
        if name.partition(".")[0] not in sys.stdlib_module_names and name.partition(".")[0] != "overt"
    )
    children = []
    if sys.platform == "linux":
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = file.read().split()
    print(third, threading.active_count(), children)
"""


def test_importing_overt_imports_nothing_of_others_starts_nothing_and_prints_nothing(tmp_path: Path) -> None:
    done = run(IMPORT, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] 1 []\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module", ["overt.errors", "overt.records", "overt.clock", "overt.run", "overt.tracker", "overt.evaluation.report"]
)
def test_what_a_loop_needs_imports_no_scientific_library(module: str) -> None:
    heavy = {"numpy", "sklearn", "mlflow", "matplotlib", "pandas", "torch"}
    done = run(f"import sys, {module}\nprint(sorted({heavy} & set(sys.modules)))", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_the_public_names_are_all_there() -> None:
    import overt
    from overt.optional import is_installed

    torch_is_needed = {"TrackingCallback": "lightning", "track_training": "torch"}
    for name in overt.__all__:
        if name == "SklearnTrackingCallback" and not exists("sklearn.callback"):
            with pytest.raises(overt.OvertError, match=r"scikit-learn 1\.9 or newer"):
                getattr(overt, name)
        elif is_installed(torch_is_needed.get(name, "overt")):
            assert getattr(overt, name) is not None
        else:
            with pytest.raises(overt.OvertError, match=r"pip install 'overt\[(lightning|torch)\]'"):
                getattr(overt, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = overt.nothing
