import pytest
from rich.table import Table

from fedstill.terminal import wide


@pytest.mark.parametrize("columns", ["40", "500"])
def test_nothing_of_a_table_is_cut_on_a_narrow_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = Table()
    for place in range(12):
        table.add_column(f"latency {place}", no_wrap=True)
    table.add_row(*(f"{1234567.5 + place}" for place in range(12)))
    wide(table).print(table)
    shown = capsys.readouterr().out
    assert all(f"latency {place}" in shown and f"{1234567.5 + place}" in shown for place in range(12))
    assert "…" not in shown
