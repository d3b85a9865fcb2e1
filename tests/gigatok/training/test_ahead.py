from gigatok.training.ahead import Ahead


def test_the_next_step_is_computed_while_this_one_is_used() -> None:
    computed: list[tuple[int, int]] = []

    def compute(step: int, part: slice) -> int:
        computed.append((step, part.start))
        return 10 * step + part.start

    ahead = Ahead(compute)
    parts = slice(0, 2), slice(2, 4)
    values = [ahead.get(step, part) for step in range(3) for part in parts]
    assert values == [0, 2, 10, 12, 20, 22]
    assert ahead.get(9, parts[1]) == 92
    assert sorted(computed)[:6] == [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)]
    assert len(computed) == len(set(computed))
