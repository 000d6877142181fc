"""The admitted sites as the coordinator knows them: presence, pace, contributions and measurements."""

import logging
from collections.abc import Collection, Iterable
from typing import Any

from coordinator.engine.rates import SiteRate, observe
from coordinator.ledger import Ledger
from coordinator.making import arrival_of
from coordinator.paces import tells_pace
from coordinator.state import SiteState, active_sites, federation_metrics, middle_metrics, worst_metrics
from coordinator.tables import StoredUpdate
from fedward.messages import Evaluation, Status, Telemetry

LOG = logging.getLogger(__name__)


class Members:
    """Everything that is said about sites in one place; what must survive a restart is recalled from the ledger."""

    def __init__(self, names: Iterable[str], ledger: Ledger) -> None:
        self.sites = {name: SiteState() for name in names}
        self.rates: dict[str, SiteRate] = ledger.paces()
        for name, reason, number in ledger.num_ended():
            self._count(name, reason, number)
        for name, (base_version, codec, norm) in ledger.last_accepted().items():
            if site := self.sites.get(name):
                site.base_version, site.codec, site.norm = base_version, codec, norm
        for name, totals in ledger.totals().items():
            if name in self.sites:
                self.sites[name].num_accepted += totals.num_accepted
                self.sites[name].num_refused += totals.num_refused
        for evaluation in ledger.latest_evaluations():
            site = self.sites.get(evaluation.site)
            if site:
                site.evaluated_version = evaluation.version
                site.metrics = {**site.metrics, evaluation.metric: evaluation.ratio}

    def __contains__(self, name: object) -> bool:
        return name in self.admitted()

    def admitted(self) -> frozenset[str]:
        """The sites that are listened to."""
        return frozenset(name for name, site in self.sites.items() if site.enrolled)

    def enrol(self, names: Collection[str]) -> None:
        """These are enrolled now, and nobody else. Who returns later with another key was never heard."""
        for name, site in self.sites.items():
            if site.enrolled and name not in names:
                site.status = None
            site.enrolled = name in names

    def heard(self, name: str, now_s: float) -> None:
        self.sites[name].heard_at_s = now_s

    def on_status(self, name: str, status: Status) -> bool:
        """A notice that a process is gone is only believed of the process that was last here; whether one is new."""
        known = self.sites[name].status
        if status.online or known is None or known.boot_id == status.boot_id:
            self.sites[name].status = status
            LOG.info("status", extra={"site": name, "online": status.online, "leaving": status.leaving})
        return status.online and (known is None or known.boot_id != status.boot_id)

    def on_telemetry(self, name: str, telemetry: Telemetry, now_s: float) -> None:
        site = self.sites[name]
        site.telemetry = telemetry
        site.clock_skew_s = None if telemetry.sent_at_s is None else telemetry.sent_at_s - now_s

    def on_evaluation(self, name: str, evaluation: Evaluation) -> None:
        """Take a measurement; one of an older version than the last comes from a repeated message."""
        known = self.sites[name].evaluated_version
        if known is not None and evaluation.version < known:
            return
        self.sites[name].evaluated_version = evaluation.version
        self.sites[name].metrics = dict(evaluation.metrics)

    def on_update(self, row: StoredUpdate) -> None:
        """An update had its receipt."""
        if tells_pace(row.reason):
            self.rates[row.site] = observe(self.rates.get(row.site), arrival_of(row))
        self._count(row.site, row.reason, 1)
        if row.site in self.sites and row.reason is None:
            site = self.sites[row.site]
            site.base_version, site.codec, site.norm = row.base_version, row.codec, row.norm

    def _count(self, name: str, reason: str | None, number: int) -> None:
        site = self.sites.get(name)
        if site is None:  # admitted once, and not any more
            return
        if reason:
            site.num_refused += number
        else:
            site.num_accepted += number

    def on_folded(self, row: StoredUpdate, staleness: int, weight: float) -> None:
        site = self.sites.get(row.site)
        if site:
            site.staleness, site.weight = staleness, weight

    def hold(self, held: Collection[str]) -> None:
        """These are in quarantine now, and no others."""
        for name, site in self.sites.items():
            site.quarantined = name in held

    def online(self) -> set[str]:
        """The sites that could ask for something now."""
        return {name for name, site in self.sites.items() if site.online}

    def active(self, barrier: bool) -> set[str]:
        """The sites that a version may wait for."""
        return active_sites(self.sites, self.rates, barrier)

    def metrics(self) -> dict[str, float]:
        """Each metric over all sites, of their latest measurements."""
        return federation_metrics(self.sites)

    def worst_metrics(self) -> dict[str, float]:
        """Each metric at the site where it is worst, of their latest measurements."""
        return worst_metrics(self.sites)

    def middle_metrics(self) -> dict[str, float]:
        """Each metric of the site in the middle, of their latest measurements."""
        return middle_metrics(self.sites)

    def measured_by_all(self) -> bool:
        """Whether every site that is here has measured a trained version: the first to do so does not decide alone."""
        here = self.active(barrier=False)
        return bool(here) and all((self.sites[name].evaluated_version or 0) > 0 for name in here)

    def page(self) -> dict[str, Any]:
        return {name: site.page() for name, site in self.sites.items()}
