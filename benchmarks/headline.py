"""Times overt beside MLflow's own ways, in one run on one machine, and checks that what was timed arrived.

Every timing is taken in a process of its own, sides alternate, and medians are compared within this run only: absolute
times differ from machine to machine, ratios hardly. ``make bench`` runs it; ``--check`` makes a missed budget an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WORK = Path(__file__).with_name("work")


@dataclass(frozen=True)
class Line:
    """One line of the result: a budget of ours, or for comparison a way of MLflow's."""

    what: str
    value: float
    unit: str
    budget: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the budget, if there is one, is kept."""
        return self.budget is None or self.value <= self.budget


def main() -> int:
    """Run the parts that were asked for and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=list(PARTS), action="append", help="a part to run; all of them by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed (default 5)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a budget is missed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    lines: list[Line] = []
    for name in options.only or PARTS:
        if not options.json:
            print(f"\n{PARTS[name].__doc__.partition(chr(10))[0]}")
        for line in PARTS[name](options.rounds):
            lines.append(line)
            if not options.json:
                budget = "" if line.budget is None else f"  budget {line.budget:g}{'' if line.is_met else '   MISSED'}"
                print(f"  {line.what:<62}{line.value:>10.3f} {line.unit:<3}{budget}", flush=True)
    if options.json:
        about = {"python": platform.python_version(), "cores": os.cpu_count(), "machine": platform.machine()}
        print(json.dumps({"about": about, "lines": [vars(line) | {"met": line.is_met} for line in lines]}, indent=2))
    return int(options.check and not all(line.is_met for line in lines))


# -- the parts ---------------------------------------------------------------------------------------------------------


def part_import(rounds: int) -> Iterator[Line]:
    """Importing: what every script pays."""
    times = [work("import_overt.py")["seconds"] for _ in range(3 * rounds)]
    yield Line("import overt", 1000 * statistics.median(times), "ms", 50)


def part_metric(rounds: int) -> Iterator[Line]:
    """One metric: median time of the call."""
    sides = ("overt", "mlflow", "mlflow-async")
    results = alternate(rounds, {side: lambda side=side: work("metric.py", side) for side in sides})
    ours = median(results["overt"], "microseconds")
    yield Line("overt: run.log_metric, on disk and out of the process", ours, "us", 5)
    for side, call in (("mlflow", "log_metric"), ("mlflow-async", "log_metric(synchronous=False), not durable")):
        theirs = median(results[side], "microseconds")
        yield Line(f"mlflow: {call}", theirs, "us")
        yield Line("   times ours", theirs / ours, "x")


def part_loop(rounds: int) -> Iterator[Line]:
    """A training loop of 240 us steps with a metric a step: time as a multiple of the bare loop's."""
    for threads in ("1", "default"):
        label = f"{threads} torch thread{'s' if threads != '1' else ''}"
        results = [work("loop.py", "overt", threads) for _ in range(rounds)]
        yield Line(f"overt, courier warm and delivering, {label}", median(results, "ratio"), "x", 1.08)
        yield Line(f"   the courier's start-up window (first second), {label}", median(results, "cold_ratio"), "x")
    for side in ("mlflow", "mlflow-async"):
        results = [work("loop.py", side, "1") for _ in range(max(1, rounds // 2))]
        yield Line(f"{side}: log_metric in the loop, 1 torch thread", median(results, "ratio"), "x")


def part_torch(rounds: int) -> Iterator[Line]:
    """A PyTorch loop with a DataLoader and a validation, courier warm: an epoch as a multiple of the bare loop's."""
    for step_us, threads in (("240", "1"), ("1000", "1"), ("1000", "default")):
        results = [work("torch_loop.py", "overt", step_us, threads) for _ in range(fewer(rounds))]
        label = f"{threads} torch thread{'s' if threads != '1' else ''}"
        yield from trainings(f"@track_training, {label}", results, budget=1.08)
    results = [work("torch_loop.py", "overt-functional", "240", "1") for _ in range(fewer(rounds))]
    yield from trainings("@track_training, the loss is no argument, 1 torch thread", results)
    sides = {"tensorboard": "SummaryWriter", "mlflow": "mlflow", "mlflow-async": "mlflow, synchronous=False"}
    for side, label in sides.items():
        if is_installed(side):
            results = [work("torch_loop.py", side, "240", "1") for _ in range(fewer(rounds))]
            yield from trainings(f"the same numbers by hand, {label}, 1 torch thread", results)


def part_lightning(rounds: int) -> Iterator[Line]:
    """Trainer.fit with a validation, courier warm: an epoch as a multiple of one with logger=False."""
    sides = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger", "mlflow": "MLFlowLogger"}
    for every in ("1", "50"):
        results = [work("lightning_fit.py", "overt", every) for _ in range(fewer(rounds))]
        yield from trainings(f"TrackingCallback, log_every_n_steps={every}", results, budget=1.15)
        for side, label in sides.items():
            if is_installed(side):
                results = [work("lightning_fit.py", side, every) for _ in range(fewer(rounds))]
                yield from trainings(f"{label}, log_every_n_steps={every}", results)


def trainings(what: str, results: list[dict[str, Any]], *, budget: float | None = None) -> Iterator[Line]:
    """What trainings cost in their loops, and before and after them."""
    yield Line(what, median(results, "ratio"), "x", budget)
    yield Line("   a step of the bare loop", median(results, "step_us"), "us")
    yield Line("   before the loop, over the bare one", 1000 * median(results, "start_s"), "ms")
    yield Line("   after it", 1000 * median(results, "end_s"), "ms")


def is_installed(side: str) -> bool:
    """Whether ``side`` can be timed: TensorBoard is no dependency of anything here."""
    found = side != "tensorboard" or bool(find_spec("tensorboard") or find_spec("tensorboardX"))
    if not found:
        print("  TensorBoard is not timed: `pip install tensorboardX`", file=sys.stderr)
    return found


def part_between(rounds: int) -> Iterator[Line]:
    """What a call adds to a step of about 240 us, when the caches hold the network and not the call."""
    results = [work("between.py") for _ in range(rounds)]
    yield Line("log_metric, durable when it returns", median(results, "log_metric_us"), "us")
    yield Line("   the least that a durable point takes", median(results, "shortest_us"), "us")
    yield Line("   os.write of a ready line alone", median(results, "write_us"), "us")
    yield Line("   os.write of it to nowhere", median(results, "write_nowhere_us"), "us")


def part_stalls(rounds: int) -> Iterator[Line]:
    """Steps of more than 2 ms in a loop of about 240 us a step, as a share of the bare loop's time."""
    for threads in ("1", "default"):
        label = f"{threads} torch thread{'s' if threads != '1' else ''}"
        results = [work("stalls.py", threads) for _ in range(rounds)]
        yield Line(f"bare, {label}", 100 * median(results, "bare_stalled"), "%")
        yield Line(f"overt, courier warm and delivering, {label}", 100 * median(results, "stalled"), "%")
        yield Line("   the longest step", median(results, "longest_ms"), "ms")
        yield Line("   the median step, as a multiple of the bare one", median(results, "median_ratio"), "x")
        yield Line("   the median call of log_metric", median(results, "call_us"), "us")


def part_courier(rounds: int) -> Iterator[Line]:
    """The courier, warm, while metrics are recorded: its share of one core, into sqlite."""
    for per_second in (100, 1000, 3000):
        results = [work("courier.py", str(per_second)) for _ in range(rounds)]
        yield Line(f"{per_second} metrics a second", 100 * median(results, "share"), "%")


def part_fit(rounds: int) -> Iterator[Line]:
    """RandomForestClassifier(100).fit on the breast cancer data with everything recorded."""
    results = alternate(
        rounds, {side: lambda side=side: work("fit.py", side) for side in ("overt", "autolog", "overt-dead-server")}
    )
    ours = results["overt"]
    yield Line("overt: fit, seconds over the bare fit", median(ours, "over_bare"), "s", 0.15)
    yield Line("   the process's first fit, in which the courier starts", median(ours, "first_over_bare"), "s")
    yield Line("autolog: fit, seconds over the bare fit", median(results["autolog"], "over_bare"), "s")
    yield Line("overt: until all of it is in MLflow, courier warm", median(ours, "arrival"), "s", 0.8)
    yield Line("overt: until all of it is in MLflow, courier cold", median(ours, "cold_arrival"), "s", 4.0)
    dead = median(results["overt-dead-server"], "over_bare_ratio") / median(ours, "over_bare_ratio")
    yield Line("overt: tracked fit / bare fit with a dead server, over the same with a live one", dead, "x", 1.1)


def part_script(rounds: int) -> Iterator[Line]:
    """A whole script, from start to exit: import, one RandomForest fit with everything recorded, delivery."""
    sides = ("overt", "autolog", "bare")
    results = alternate(rounds, {side: lambda side=side: work("script.py", side) for side in sides})
    ours, theirs = median(results["overt"], "wall"), median(results["autolog"], "wall")
    yield Line("bare script", median(results["bare"], "wall"), "s")
    yield Line("overt", ours, "s")
    yield Line("autolog", theirs, "s")
    yield Line("overt as a multiple of autolog", ours / theirs, "x", 0.5)


def part_listing(rounds: int) -> Iterator[Line]:
    """The best five of 10,000 runs: filtered, sorted and as a DataFrame."""
    results = alternate(
        min(rounds, 3), {side: lambda side=side: work("listing.py", side) for side in ("overt", "mlflow")}
    )
    if results["overt"][0]["found"] != results["mlflow"][0]["found"]:
        raise RuntimeError("the two sides found different runs")
    ours, theirs = median(results["overt"], "seconds"), median(results["mlflow"], "seconds")
    yield Line("overt.runs on a JSONL store", ours, "s", 0.3)
    yield Line("mlflow.search_runs on sqlite", theirs, "s")
    yield Line("   times ours", theirs / ours, "x")


PARTS: dict[str, Callable[[int], Iterator[Line]]] = {
    "import": part_import,
    "metric": part_metric,
    "loop": part_loop,
    "between": part_between,
    "torch": part_torch,
    "lightning": part_lightning,
    "stalls": part_stalls,
    "courier": part_courier,
    "fit": part_fit,
    "script": part_script,
    "listing": part_listing,
}


# -- running the work --------------------------------------------------------------------------------------------------


def work(script: str, *arguments: str) -> dict[str, Any]:
    """Run one script of ``work/`` in a process and an empty folder of its own; what it printed last, as JSON.

    ``wall`` is added: the seconds from its start to its exit. The work itself has checked that everything arrived.
    """
    import time

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OVERT_"))}
    with tempfile.TemporaryDirectory(prefix="overt-bench-") as folder:
        database = f"sqlite:///{folder}/mlflow.db"
        environment = kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": database, "OVERT_QUIET": "1"}
        prepare(folder)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(WORK / script), *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        wall = time.perf_counter() - began
        if done.returncode != 0:
            raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2] or "{}") | {"wall": wall}
        check = [sys.executable, str(WORK / "arrived.py"), json.dumps(result)]
        subprocess.run(check, cwd=folder, env=environment, check=True)
        return result


def prepare(folder: str) -> None:
    """Put an empty MLflow database into ``folder``: making its schema costs every side the same 1.3 s."""
    import shutil

    if not prepare.template:  # type: ignore[attr-defined]
        source = tempfile.mkdtemp(prefix="overt-bench-db-")
        code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{source}/mlflow.db').get_experiment('0')"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=source)
        prepare.template = f"{source}/mlflow.db"  # type: ignore[attr-defined]
    shutil.copy(prepare.template, folder)  # type: ignore[attr-defined]


prepare.template = ""  # type: ignore[attr-defined]


def alternate(rounds: int, sides: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Time each side once per round, so that a slow minute of the machine falls on all of them."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            results[side].append(run())
    return results


def fewer(rounds: int) -> int:
    """Rounds of a part whose work takes half a minute and alternates within itself."""
    return max(1, rounds // 2)


def median(results: list[dict[str, Any]], name: str) -> float:
    """Median over the rounds."""
    return statistics.median(result[name] for result in results)


if __name__ == "__main__":
    sys.exit(main())
