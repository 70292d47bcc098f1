"""The benchmarks time both sides in the same run, until the medians settle."""

import json
from itertools import cycle

import pytest

import benchmarks.__main__ as command_line
import benchmarks.gan
import benchmarks.vae
from benchmarks import turns


def timed(monkeypatch, **durations) -> tuple[dict, list[str]]:
    """Contestants that take given seconds in turn, and the order in which they are called."""
    now, order, seconds = [0.0], [], {name: cycle(values) for name, values in durations.items()}

    def contestant(name):
        order.append(name)
        now[0] += next(seconds[name])

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    return {name: lambda name=name: contestant(name) for name in durations}, order


def test_contestants_alternate_and_the_first_turn_does_not_count(monkeypatch):
    contestants, order = timed(monkeypatch, ours=[9, 1, 1, 1, 1], textbook=[99, 4, 4, 4, 4])
    found = turns.in_turns(contestants, rounds=4, scale=10)
    assert order == ["ours", "textbook"] * 5
    assert found["times"] == {"ours": [10.0] * 4, "textbook": [40.0] * 4}
    assert found["median"] == {"ours": 10.0, "textbook": 40.0} and found["settled"]


def test_rounds_follow_until_the_medians_settle_but_not_for_ever(monkeypatch):
    contestants, _ = timed(monkeypatch, ours=[9, 1, 2, 1, 1, 1, 1, 1, 1])
    found = turns.in_turns(contestants, rounds=2)
    assert found["settled"] and 2 < len(found["times"]["ours"]) < turns.AT_MOST * 2
    contestants, _ = timed(monkeypatch, ours=[1, 2])
    found = turns.in_turns(contestants, rounds=2)
    assert not found["settled"] and len(found["times"]["ours"]) == turns.AT_MOST * 2
    assert "not settled" in turns.unsettled(found)


def test_a_busy_machine_is_said_to_be_one(monkeypatch):
    monkeypatch.setattr(turns, "usable_cores", lambda: 2)
    for load, busy in ((1.9, False), (5.0, True)):
        monkeypatch.setattr(turns.os, "getloadavg", lambda load=load: (load, 0, 0), raising=False)
        assert bool(turns.too_busy()) == busy


@pytest.mark.slow
def test_the_command_measures_what_is_named(tmp_path, monkeypatch, capsys):
    measure = benchmarks.gan.measure
    monkeypatch.setattr(benchmarks.gan, "measure", lambda rounds: measure(rounds, updates=1, width=2, device="cpu"))
    command_line.main(["gan", "--rounds", "1", "--out", str(tmp_path / "speed.json")])
    kinds = json.loads((tmp_path / "speed.json").read_text())["gan"]["kinds"]
    assert kinds.keys() == benchmarks.gan.KINDS.keys() and "JSD, R1" in capsys.readouterr().out
    for row in kinds.values():
        assert row["times_faster"] == pytest.approx(row["median"]["plain"] / row["median"]["fast"])
    with pytest.raises(SystemExit):
        command_line.main(["gna"])


@pytest.mark.slow
def test_the_vae_is_timed_beside_the_textbook_and_the_floor(monkeypatch):
    monkeypatch.setattr(benchmarks.vae, "SAMPLES", 5)
    monkeypatch.setattr(benchmarks.vae, "peak_memory", lambda images: 1.0)
    monkeypatch.setattr(benchmarks.vae, "compile_where_possible", lambda function: function)
    result = benchmarks.vae.measure(rounds=1, share=0.01)
    for task in ("epoch", "estimate"):
        median = result[task]["median"]
        assert median.keys() == {"textbook", "ours", "floor"}
        assert result[task]["times_the_floor"] == pytest.approx(median["ours"] / median["floor"])
    assert benchmarks.vae.FLOOR in benchmarks.vae.lines(result)
