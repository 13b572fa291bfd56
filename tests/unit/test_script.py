"""Loading the scripts of the verbs from their files."""

from pathlib import Path

import pytest

from celery_daemons.store import script


def test_replacing_the_files_after_the_first_verb_changes_no_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks: the package is upgraded in place before its workers shut down."""
    # Given a separate copy of the package
    lua = tmp_path / "lua"
    lua.mkdir()
    for name in ("_shared", "join", "leave"):
        (lua / f"{name}.lua").write_text(f"-- {name}\n")
    monkeypatch.setattr(script, "files", lambda _package: tmp_path)
    script.script.cache_clear()
    script._files.cache_clear()
    try:
        # When
        assert script.script("join").source == "-- _shared\n-- join\n"
        (lua / "leave.lua").unlink()

        # Then
        assert script.script("leave").source == "-- _shared\n-- leave\n"
    finally:
        script.script.cache_clear()
        script._files.cache_clear()
