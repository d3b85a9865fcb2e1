from __future__ import annotations

import pytest

from analysis.paper.published import facts
from analysis.tables.published import TABLES
from analysis.tables.render import TEXT_FORMATS


def cells(name: str) -> list[dict[str, str]]:
    table = TABLES[name]()
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def test_every_published_number_is_in_a_table() -> None:
    shown = {source["id"] for make in TABLES.values() for source in make().origins}
    assert shown == {fact.id for fact in facts()}


@pytest.mark.parametrize("name", TABLES)
def test_tables_in_every_format(name: str) -> None:
    table = TABLES[name]()
    assert all(len(row) == len(table.head) == len(table.numeric) for row in table.rows)
    for render in TEXT_FORMATS.values():
        assert len(render(table).splitlines()) > 1


def test_table_10_is_the_papers() -> None:
    rows = cells("table10")
    assert [(r["tokenizer"], r["generator (M)"], r["gFID ↓"], r["IS ↑"]) for r in rows][3:6] == [
        ("B-L", "111", "3.26", "221.02"),
        ("B-L", "1400", "2.03 (no guidance)", "238.52"),
        ("B-L (DINO disc)", "111", "3.33", "265.43"),
    ]
    assert {r["rFID ↓"] for r in rows if r["tokenizer"] == "B-L"} == {"0.81"}, "in both rows"
    assert rows[0]["probe acc. (%) ↑"] == "—"


def test_digitised_values_are_marked_and_explained() -> None:
    assert cells("figure7")[5]["gFID ↓"] == "4.821†"
    assert any(note.startswith("† Read off") for note in TABLES["figure7"]().notes)
    assert "†" not in " ".join(row["gFID ↓"] for row in cells("table2"))


def test_confounds_are_noted_where_they_matter() -> None:
    notes = {name: " ".join(TABLES[name]().notes) for name in ("table5", "table7", "table10")}
    assert "not S-S at layer 3" in notes["table5"]
    assert "worst gFID of the four" in notes["table7"]
    assert "training-only head" in notes["table10"]


def test_what_is_absent_has_a_table() -> None:
    assert {"Figure 1", "Figure 12", "Figure 13"} <= {row["place"] for row in cells("absent")}
