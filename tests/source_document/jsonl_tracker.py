# Section 8 of the source document, as it stands there.
"""
MLflow 없이 사용하는 경량 실험 추적기.
JSON Lines(.jsonl) 형식으로 저장하여 검색과 분석이 용이하다.
"""
import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

import pandas as pd


class LightExperimentTracker:
    """JSON Lines 기반 경량 실험 추적기"""

    def __init__(self, base_dir: str = "./experiments"):
        self.base_dir = Path(base_dir)
        self.base_dir.mkdir(parents=True, exist_ok=True)
        self.log_file = self.base_dir / "runs.jsonl"
        self.artifact_dir = self.base_dir / "artifacts"
        self.artifact_dir.mkdir(exist_ok=True)

    def start_run(
        self,
        experiment: str,
        run_name: Optional[str] = None,
    ) -> str:
        """새 run을 시작하고 run_id를 반환한다."""
        self._current_run = {
            "run_id": uuid.uuid4().hex[:12],
            "experiment": experiment,
            "run_name": run_name or f"run-{datetime.now().strftime('%H%M%S')}",
            "timestamp": datetime.now().isoformat(),
            "params": {},
            "metrics": {},
            "tags": {},
            "artifacts": [],
        }
        return self._current_run["run_id"]

    def log_params(self, params: dict[str, Any]) -> None:
        self._current_run["params"].update(params)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self._current_run["metrics"].update(metrics)

    def log_tags(self, tags: dict[str, str]) -> None:
        self._current_run["tags"].update(tags)

    def log_artifact(self, file_path: str) -> None:
        """파일을 artifact 디렉토리에 복사하고 경로를 기록한다."""
        import shutil

        src = Path(file_path)
        run_id = self._current_run["run_id"]
        dest_dir = self.artifact_dir / run_id
        dest_dir.mkdir(exist_ok=True)
        dest = dest_dir / src.name
        shutil.copy2(src, dest)
        self._current_run["artifacts"].append(str(dest))

    def end_run(self) -> dict:
        """현재 run을 JSONL 파일에 저장한다."""
        self._current_run["duration_note"] = "manual"
        with open(self.log_file, "a") as f:
            f.write(json.dumps(self._current_run, ensure_ascii=False) + "\n")
        saved = self._current_run.copy()
        self._current_run = {}
        return saved

    def load_all_runs(self) -> pd.DataFrame:
        """전체 실험 기록을 DataFrame으로 반환한다."""
        if not self.log_file.exists():
            return pd.DataFrame()

        runs = []
        with open(self.log_file, "r") as f:
            for line in f:
                run = json.loads(line.strip())
                flat = {
                    "run_id": run["run_id"],
                    "experiment": run["experiment"],
                    "run_name": run["run_name"],
                    "timestamp": run["timestamp"],
                }
                for k, v in run["params"].items():
                    flat[f"param_{k}"] = v
                for k, v in run["metrics"].items():
                    flat[f"metric_{k}"] = v
                runs.append(flat)
        return pd.DataFrame(runs)

    def best_run(self, metric: str = "metric_accuracy") -> pd.Series:
        """특정 메트릭 기준 최고 run을 반환한다."""
        df = self.load_all_runs()
        return df.loc[df[metric].idxmax()]
