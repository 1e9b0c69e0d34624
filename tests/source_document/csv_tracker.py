# Section 1 of the source document, as it stands there.
import pandas as pd
from datetime import datetime
from pathlib import Path


class SimpleExperimentTracker:
    """CSV 기반 간단한 실험 추적기"""

    def __init__(self, log_path: str = "experiments.csv"):
        self.log_path = Path(log_path)
        if self.log_path.exists():
            self.df = pd.read_csv(self.log_path)
        else:
            self.df = pd.DataFrame()

    def log_run(
        self,
        experiment_name: str,
        params: dict,
        metrics: dict,
        notes: str = "",
    ) -> None:
        """하나의 실험 실행을 기록한다."""
        row = {
            "timestamp": datetime.now().isoformat(),
            "experiment": experiment_name,
            "notes": notes,
        }
        # params와 metrics를 prefix 붙여서 컬럼으로 저장
        for k, v in params.items():
            row[f"param_{k}"] = v
        for k, v in metrics.items():
            row[f"metric_{k}"] = v

        new_row = pd.DataFrame([row])
        self.df = pd.concat([self.df, new_row], ignore_index=True)
        self.df.to_csv(self.log_path, index=False)
        print(f"[logged] {experiment_name} | acc={metrics.get('accuracy', 'N/A')}")

    def best_run(self, metric_col: str = "metric_accuracy") -> pd.Series:
        """특정 메트릭 기준 최고 실험을 반환한다."""
        return self.df.loc[self.df[metric_col].idxmax()]

    def summary(self) -> pd.DataFrame:
        """전체 실험 요약 테이블을 반환한다."""
        return self.df.sort_values("timestamp", ascending=False)
