"""The benchmarks time both sides in the same run, in turns."""

from benchmarks import turns


def test_contestants_alternate_and_the_first_turn_does_not_count(monkeypatch):
    now, order, seconds = [0.0], [], {"ours": iter([9, 1, 3, 2]), "textbook": iter([99, 4, 4, 4])}

    def contestant(name):
        order.append(name)
        now[0] += next(seconds[name])

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    found = turns.in_turns({name: lambda name=name: contestant(name) for name in seconds}, rounds=3, scale=10)
    assert order == ["ours", "textbook"] * 4 and found == {"ours": 20, "textbook": 40}
