"""How a metric is written for people."""


def label(metric: str) -> str:
    """An abbreviation in capitals, a word as it is."""
    return metric.upper() if metric == "auc" else metric
