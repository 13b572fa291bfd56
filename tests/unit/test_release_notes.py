"""The script that takes the notes of a release from the changelog."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "release_notes.py"

CHANGELOG = """# Changelog

## Unreleased

- Not yet.

## [1.10.0](compare) - 2026-02-03

- Newest.

### Fixed

- A bug.

## 1.1.0

## 1.0.0

The first release.

[link]: somewhere
"""


def script() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("release_notes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notes = script()


@pytest.fixture
def changelog(tmp_path: Path) -> Path:
    path = tmp_path / "CHANGELOG.md"
    path.write_text(CHANGELOG)
    return path


def test_the_notes_are_the_section_of_the_version(changelog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes.main(["v1.10.0", "--version", "1.10.0", "--changelog", str(changelog)])

    assert capsys.readouterr().out == "- Newest.\n\n### Fixed\n\n- A bug.\n"


def test_the_last_section_ends_before_link_definitions() -> None:
    assert notes.section(CHANGELOG, "1.0.0") == "The first release."


@pytest.mark.parametrize(
    ("tag", "version", "reason"),
    [
        ("v1.0.0", "1.10.0", "the tag 'v1.0.0' does not match version 1.10.0"),
        ("1.10.0", "1.10.0", "does not match"),
        ("v1.1.0", "1.1.0", "section for 1.1.0 is empty"),
        ("v1", "1", "no section for 1"),
        ("v9.0.0", "9.0.0", "no section for 9.0.0"),
    ],
)
def test_a_release_without_notes_is_refused(
    tag: str, version: str, reason: str, changelog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        notes.main([tag, "--version", version, "--changelog", str(changelog)])

    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_the_present_version_has_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        notes.main(["v0"])
    version = capsys.readouterr().err.split("tag v")[-1].strip()

    notes.main([f"v{version}"])

    assert capsys.readouterr().out.strip()
