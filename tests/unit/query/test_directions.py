from __future__ import annotations

import pytest

from overt.errors import ConfigurationError
from overt.query.directions import direction_of, mode_of

HIGH = """
accuracy f1_score f1_macro f1_weighted precision recall roc_auc roc_auc_ovo average_precision r2 explained_variance
balanced_accuracy training_accuracy train_acc val_accuracy test_f1_score cv_accuracy cv_mean_accuracy eval_2_recall
best_cv_score search_cv_mean_f1_score f1_score_cat precision_weighted silhouette calinski_harabasz val/accuracy
neg_mean_squared_error cv_mean_neg_log_loss training_score d2_absolute_error_score matthews_corrcoef mAP F1 f1-score
mAP@0.5 recall@10 accuracy_epoch score roc_auc_ovr_weighted accuracy_top_5 precision_at_10 map_50 accuracy_val r2_price
score_epoch f1_score_class_3 d2_log_loss_score explained_variance accuracy_score
""".split()
LOW = """
loss train_loss val_loss loss_step training_log_loss log_loss rmse rmse_pooled mae mse mape median_absolute_error
max_error mean_squared_error val_error cv_mean_rmse test_loss davies_bouldin hamming_loss brier_score perplexity
dice_loss val/loss train_loss_epoch error_rate mean_poisson_deviance rmse_price mae_mean loss_val test_loss_step
""".split()
UNKNOWN = """
epoch_seconds cv_std_accuracy lr learning_rate gradient_norm n_clusters foo score_time fit_time accuracy_std glossary
accuracy_drop f1_gap accuracy_variance cv_accuracy_variance recall_fpr accuracy_ci_width accuracy_p_value rand_seed
map_size latency error_reduction log_loss_improvement rmse_improvement loss_scale loss_weight precision_gap r2_std
accuracy_count f1_score_variance recall_ci_lower losses
""".split()


@pytest.mark.parametrize("name", HIGH)
def test_higher_is_better(name: str) -> None:
    assert direction_of(name) == "max"


@pytest.mark.parametrize("name", LOW)
def test_lower_is_better(name: str) -> None:
    assert direction_of(name) == "min"


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_that_does_not_say_has_to_be_told(name: str) -> None:
    assert direction_of(name) is None
    with pytest.raises(ConfigurationError, match="say mode='max' or mode='min'"):
        mode_of(name, None)
    assert mode_of(name, "min") == "min"


def test_what_is_said_wins_over_the_name() -> None:
    assert mode_of("accuracy", "min") == "min"


def test_what_is_no_text_is_no_metric() -> None:
    with pytest.raises(ConfigurationError, match=r"`metric` must be a name such as 'f1_score' \(got int\)"):
        mode_of(5, "max")  # type: ignore[arg-type]


def test_another_word_is_no_direction() -> None:
    with pytest.raises(ConfigurationError, match=r"must be 'max' or 'min' \(got 'highest'\)"):
        mode_of("accuracy", "highest")
