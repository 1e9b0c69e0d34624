"""Times one metric call, by overt or by one of MLflow's ways; the argument says which."""

import json
import statistics
import sys
import time

side = sys.argv[1]
CALLS = {"overt": 20_000, "mlflow": 200, "mlflow-async": 1_000}[side]

if side == "overt":
    import overt

    run = overt.start_run("bench")
    run.log_metric("warm", 0.0)
    overt.wait()  # the courier is warm and idle

    def log(value: float, step: int) -> None:
        run.log_metric("loss", value, step=step)
else:
    import mlflow

    mlflow.start_run()
    mlflow.log_metric("warm", 0.0)
    synchronous = side == "mlflow"

    def log(value: float, step: int) -> None:
        mlflow.log_metric("loss", value, step=step, synchronous=synchronous)


blocks = []
for block in range(20):
    began = time.perf_counter()
    for step in range(block * CALLS // 20, (block + 1) * CALLS // 20):
        log(step * 0.5, step)
    blocks.append((time.perf_counter() - began) / (CALLS // 20))

if side == "overt":
    run.finish()
    run_id = run.id
else:
    run_id = mlflow.active_run().info.run_id
    mlflow.end_run()
    mlflow.flush_async_logging()
print(json.dumps({"microseconds": 1e6 * statistics.median(blocks), "expect": {run_id: {"metrics": {"loss": CALLS}}}}))
