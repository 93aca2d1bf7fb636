"""A search's numbers among Ray's own metrics: in Prometheus, and so in Grafana and Ray's dashboard.

The driver's node has them on its metrics endpoint, as ray_trashseg_..., within Ray's report interval
(10 s), and no longer than two of those after the search has ended.
"""

from ray.util.metrics import Gauge

from search.config import SearchConfig
from search.progress import Status


class RayMetrics:
    """Gauges with the run's name as a tag."""

    def __init__(self, config: SearchConfig) -> None:
        tags = {"run": config.search.name}
        self._best = Gauge(
            "trashseg_best_score", "Best score of a trial so far.", ("run", "metric")
        ).set_default_tags({**tags, "metric": config.metric})
        self._trials = Gauge(
            "trashseg_trials", "Trials by state.", ("run", "state")
        ).set_default_tags(tags)
        self._pace = Gauge(
            "trashseg_epochs_per_second", "Epochs of all trials, since the command began.", ("run",)
        ).set_default_tags(tags)

    def show(self, status: Status) -> None:
        if status.best:
            self._best.set(status.best.score)
        for state, count in status.counts.items():
            self._trials.set(count, {"state": state.replace(" ", "_")})
        self._pace.set(status.pace.per_hour / 3600)
