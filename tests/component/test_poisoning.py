"""What the poisoning benchmark makes of its runs, and that its hostile member is there and attacks."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.poisoning import BAR_SETTING, HOSTILE, Outcome, Siege, losses, show
from benchmarks.simulation import Conditions
from coordinator.engine.settings import EngineSettings
from coordinator.precision import Precision
from fedward.messages import Work
from sandbox.datasets import SiteData, Split, split


def outcome(attack: str | None, seed: int, auc: float) -> Outcome:
    return Outcome(BAR_SETTING, attack, seed, auc, {"outlier": 3} if attack else {})


def test_what_an_attack_takes_away_is_counted_under_each_seed() -> None:
    runs = [outcome(None, 0, 0.90), outcome(None, 1, 0.80), outcome("scaled", 0, 0.89), outcome("scaled", 1, 0.80)]
    [(setting, attack, mean, most)] = losses(runs)
    assert (setting, attack) == (BAR_SETTING, "scaled")
    assert (mean, most) == pytest.approx((0.005, 0.01))


@pytest.mark.parametrize(("auc", "held"), [(0.891, True), (0.889, False)])
def test_the_bar_is_a_hundredth_of_auc(auc: float, held: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert show([outcome(None, 0, 0.90), outcome("flipped", 0, auc)]) is held
    assert "outlier" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "refused"), [("scaled", "outlier"), ("nan", "not_finite"), ("flipped", None)])
def test_the_hostile_member_sends_what_it_is_said_to_send(tmp_path: Path, attack: str, refused: str | None) -> None:
    four = split("breast-cancer", 4, None, tmp_path / "data")
    sites = Split((*four, SiteData(HOSTILE, four[0].options, four[0].num_train, 0)), four.pooled)
    conditions = Conditions(
        task="breast-cancer",
        split=sites,
        work=Work(local_epochs=1, batch_size=16, local_lr=0.02),
        engine=EngineSettings(buffer_size=5),
        seed=0,
        precision=Precision(0),
    )
    siege = Siege(tmp_path / "run", conditions, attack)
    assert all(np.isfinite(vector_P).all() for vector_P in siege.run(3))
    assert set(siege.refused) == ({refused} if refused else set())
