"""The benchmarks time both sides in the same run, in turns."""

import json

import pytest

import benchmarks.__main__ as command_line
import benchmarks.gan
from benchmarks import turns


def test_contestants_alternate_and_the_first_turn_does_not_count(monkeypatch):
    now, order, seconds = [0.0], [], {"ours": iter([9, 1, 3, 2]), "textbook": iter([99, 4, 4, 4])}

    def contestant(name):
        order.append(name)
        now[0] += next(seconds[name])

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    found = turns.in_turns({name: lambda name=name: contestant(name) for name in seconds}, rounds=3, scale=10)
    assert order == ["ours", "textbook"] * 4 and found == {"ours": 20, "textbook": 40}


@pytest.mark.slow
def test_the_command_measures_what_is_named(tmp_path, monkeypatch, capsys):
    measure = benchmarks.gan.measure
    monkeypatch.setattr(benchmarks.gan, "measure", lambda rounds: measure(rounds, updates=1, width=2, device="cpu"))
    command_line.main(["gan", "--rounds", "1", "--out", str(tmp_path / "new" / "speed.json")])
    kinds = json.loads((tmp_path / "new" / "speed.json").read_text())["gan"]["kinds"]
    assert kinds.keys() == benchmarks.gan.KINDS.keys() and '"JSD, R1": {' in capsys.readouterr().out
    for row in kinds.values():
        assert row["times_faster"] == pytest.approx(row["median"]["plain"] / row["median"]["fast"])
    with pytest.raises(SystemExit):
        command_line.main(["gna"])
