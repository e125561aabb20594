"""The legacy collector of metrics, still built by handlers' own tests."""

from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric


class MetricsStore:
    """Collects `Metric` objects in `store`; a counter of the same name and dimensions adds up."""

    def __init__(self, request_ids: dict[int, str] | None, model_name: str) -> None:
        self.request_ids = request_ids
        self.model_name = model_name
        self.store: list[Metric] = []

    def add_counter(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        self._add(name, value, "count", self._request_id(idx), dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        if unit not in ("ms", "s"):
            raise ValueError("the unit for a timed metric should be one of ['ms', 's']")
        self._add(name, value, unit, self._request_id(idx), dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self._add(name, value, unit, self._request_id(idx), dimensions)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        self._add(name, value, "percent", self._request_id(idx), dimensions)

    def add_error(self, name: str, value: float, dimensions: list[Dimension] | None = None) -> None:
        self._add(name, value, "", None, dimensions)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        self._add(name, value, unit, self._request_id(idx), dimensions)

    def _add(
        self,
        name: str,
        value: float,
        unit: str,
        request_id: str | None,
        dimensions: list[Dimension] | None,
        method: str | None = None,
    ) -> None:
        labels = list(dimensions or [])
        if request_id is None:
            labels.append(Dimension("Level", "Error"))
        else:
            labels += [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]
        if method == "counter":
            for metric in self.store:
                same = list(map(str, metric.dimensions)) == list(map(str, labels))
                if same and (metric.name, metric.request_id) == (name, request_id):
                    metric.update(value)
                    return
        self.store.append(Metric(name, value, unit, labels, request_id, method))

    def _request_id(self, idx: int | None) -> str | None:
        if not self.request_ids:
            return None
        if idx in self.request_ids:
            return self.request_ids[idx]
        return ",".join(self.request_ids.values())
