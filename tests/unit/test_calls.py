"""The scripts of the verbs, as they come from their files."""

from pathlib import Path

import pytest

from celery_daemons.store import calls


def test_what_befalls_the_files_after_the_first_verb_changes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks: the package is upgraded where it stands, and only then do its workers shut down."""
    # Given an installation of its own
    lua = tmp_path / "lua"
    lua.mkdir()
    for name in ("_shared", "join", "leave"):
        (lua / f"{name}.lua").write_text(f"-- {name}\n")
    monkeypatch.setattr(calls, "files", lambda _package: tmp_path)
    calls.script.cache_clear()
    calls._files.cache_clear()
    try:
        # When
        assert calls.script("join").source == "-- _shared\n-- join\n"
        (lua / "leave.lua").unlink()

        # Then
        assert calls.script("leave").source == "-- _shared\n-- leave\n"
    finally:
        calls.script.cache_clear()
        calls._files.cache_clear()
