import logging

from fmseg import console


def test_brackets_in_a_table_are_read_as_they_are(capsys):
    console.print_table("scores [all]", ["HD95 [mm]", "name [b]"], [(1.5, "[red]case[/red]"), (2.5, "[/]")])
    said = capsys.readouterr().out
    assert all(text in said for text in ("scores [all]", "HD95 [mm]", "name [b]", "[red]case[/red]", "[/]"))


def test_track_yields_everything_and_tells_the_status(monkeypatch, caplog):
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", -1.0)
    with caplog.at_level(logging.INFO, logger="fmseg"):
        assert list(console.track(range(2, 4), "training", 4, 2, lambda: "loss 0.5")) == [2, 3]
    assert "training: 4/4, loss 0.5, 0 s left" in caplog.text


def test_track_stays_silent_on_other_ranks(monkeypatch, caplog):
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", -1.0)
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.INFO, logger="fmseg"):
        assert list(console.track(range(3), "training", 3)) == [0, 1, 2]
    assert not caplog.text


def test_a_terminal_gets_a_bar_with_the_status(monkeypatch):
    from rich.console import Console

    terminal = Console(force_terminal=True, width=120, record=True, stderr=True)
    monkeypatch.setattr(console, "messages", terminal)
    assert list(console.track(range(3), "training", 3, status=lambda: "loss 0.5")) == [0, 1, 2]
    assert "loss 0.5" in terminal.export_text()
