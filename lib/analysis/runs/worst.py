"""The people of a test with the largest errors."""

import numpy as np

from lib.analysis.runs.read import Evaluation
from lib.core.visualize import contact_sheet
from lib.metrics import Metric
from lib.utils.errors import UserError
from lib.utils.text import markdown_table


def worst_people(evaluation: Evaluation, metric: Metric, count: int) -> tuple[np.ndarray, str]:
    """Return the `contact_sheet` of the people with the largest mean errors, and a table of them.

    The mean is over the annotated joints that count in the metric; the worst person comes first.
    UserError if nobody has one, or an image cannot be read.
    """
    dataset, predictions = evaluation.dataset, evaluation.predictions
    counted = list(metric.parts(dataset.skeleton).values())[-1]
    errors = metric.errors(predictions, dataset)[:, counted]
    counts = (~np.isnan(errors)).sum(axis=1)
    means = np.nansum(errors, axis=1) / np.maximum(counts, 1)
    worst = [int(i) for i in np.argsort(-means, kind="stable") if counts[i]][:count]
    if not worst:
        raise UserError(f"{dataset.annotation.path}: nobody has a joint that {metric.name} counts")
    rows = ([str(i), dataset.records[i].image, f"{means[i]:.3f}"] for i in worst)
    table = markdown_table(["Person", "Image", f"Mean error ({metric.error_unit})"], rows)
    return contact_sheet(dataset, predictions, worst), table
