"""What a user sees on MLflow's own pages after the example: looked at in a browser, since a database shows no page."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.examples.demo import EXPERIMENT, RUNS, Demo, run_demo

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START_S = 60.0
SHOWN_MS = 30_000  # a page on a busy machine; it is looked at again and again until then


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    done = run_demo(tmp_path_factory)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def ids(demo: Demo) -> dict[str, str]:
    """Ids of the experiment and of each run, by name."""
    from overt.stores.mlflow.connection import connect

    client = connect(demo.uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    return {EXPERIMENT: experiment.experiment_id} | {run.info.run_name: run.info.run_id for run in runs}


@pytest.fixture(scope="module")
def address(demo: Demo) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "overt", "ui", "--store", demo.uri, "--port", str(port)],
        cwd=demo.folder,
        env=dict(os.environ) | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_healthy(address: str, server: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"{address}/health", timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"overt ui is not answering (exit code {server.poll()})")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for all tests here, which share what it has of MLflow's scripts: each opens a page of its own."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser.new_context(viewport={"width": 1500, "height": 1800})
        finally:
            browser.close()


@pytest.fixture
def look(address: str, browser: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Open a page of MLflow's; a picture of it stays in the test's folder, whatever comes of the test."""
    page = browser.new_page()
    page.set_default_timeout(SHOWN_MS)

    def look(path: str) -> Any:
        page.goto(f"{address}/#/experiments/{path}")
        return page

    try:
        yield look
    finally:
        page.screenshot(path=str(tmp_path / "page.png"))
        page.close()


def see(page: Any, text: str) -> None:
    sync_api.expect(page.get_by_text(text, exact=True).first).to_be_visible(timeout=SHOWN_MS)


def test_the_list_of_runs_shows_all_three_with_their_data_and_model(look: Any, ids: dict[str, str]) -> None:
    page = look(f"{ids[EXPERIMENT]}/runs")
    for name in RUNS:
        see(page, name)
    see(page, "3 matching runs")
    see(page, "compare_classifiers.py")
    assert "train (" in page.inner_text("body")


def test_a_runs_page_says_finished_and_shows_scores_params_and_tags(look: Any, ids: dict[str, str]) -> None:
    """One run's; that the others hold the same is seen in the database, in ``tests/examples``."""
    page = look(f"{ids[EXPERIMENT]}/runs/{ids['rf-baseline']}")
    see(page, "f1_score")
    see(page, "Finished")
    see(page, "cv_mean_accuracy")
    see(page, "training_accuracy")
    see(page, "test_size")
    see(page, "rf-baseline")


def test_the_confusion_matrix_is_a_picture_under_artifacts(look: Any, ids: dict[str, str]) -> None:
    page = look(f"{ids[EXPERIMENT]}/runs/{ids['rf-tuned']}/artifacts/confusion_matrix.png")
    picture = page.locator("img[src^='blob:']").first
    sync_api.expect(picture).to_be_visible(timeout=SHOWN_MS)
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 300
    assert height > 300
    for path in ("classification_report.json", "estimator.html", "cv_results.csv", "roc_curve.png"):
        see(page, path)


def test_the_folds_are_a_chart_of_their_own(look: Any, ids: dict[str, str]) -> None:
    page = look(f"{ids[EXPERIMENT]}/runs/{ids['gb-baseline']}/model-metrics")
    see(page, "cv_accuracy")
    see(page, "f1_score")


def test_the_models_page_shows_three_models_ready(look: Any, ids: dict[str, str]) -> None:
    page = look(f"{ids[EXPERIMENT]}/models")
    sync_api.expect(page.get_by_text("Ready", exact=True)).to_have_count(3, timeout=SHOWN_MS)
    for name in RUNS:
        see(page, name)
