"""The checks of prose that ``make lint`` runs: each finds what is planted and accepts plain English."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / ".ci"


def script(name: str) -> ModuleType:
    """Return a script of ``.ci`` as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


prose = script("prose")
first_lines = script("first_lines")


@pytest.mark.parametrize(
    ("phrase", "sentence"),
    [
        ("shall", "Another node shall try."),
        ("no more", "These run no more."),
        ("any more", "It is not there any more."),
        ("anew", "Start anew."),
        ("befell", "What befell the host."),
        ("for ever", "Serve for ever."),
        ("so as to", "Wait so as to be sure."),
        ("told", "The agent is told."),
        ("tell", "Tell the worker."),
        ("hears", "The agent hears the worker."),
        ("look at", "Look at the lease again."),
        ("two looks", "Seconds between two looks."),
        ("whoever", "Whoever leads decides."),
        ("who", "The node who leads decides."),
        ("Whose", "Whose fault it was."),
        ("leaves in order", "A node that leaves in order."),
        ("stopped in order", "Daemons are stopped in order."),
        ("costs its", "A hang costs its host."),
        ("costs a daemon", "This costs a daemon 10 ms."),
        ("is the one that", "The first is the one that leads."),
        ("without a word", "A death without a word."),
    ],
)
def test_a_planted_phrase_is_found_in_a_markdown_file(phrase: str, sentence: str) -> None:
    findings = prose.check_text("docs/page.md", f"# Title\n\n{sentence}\n")

    assert (3, phrase.lower()) in [(finding.line, finding.phrase.lower()) for finding in findings]
    assert all(finding.replacement for finding in findings)


@pytest.mark.parametrize(
    "sentence",
    [
        "At most one start, and no more than ten daemons.",
        "No more daemons than nodes.",
        "People who run a cluster; operators and users of Redis who do so.",
        "Who should read this page?",
        "A node whose lease has ended.",
        "URLs are tried in order; messages arrive in order per sender.",
        "Sort the moves in order to keep them stable.",
        "The address book tells you where each daemon runs.",
        "The agent cannot tell whether the answer was lost, nor tell one server from another.",
        "A look-up costs one command.",
        "The method `tell` of a channel, `anew` and `who`.",
    ],
)
def test_correct_english_is_accepted(sentence: str) -> None:
    assert prose.check_text("docs/page.md", sentence) == []


def test_python_is_searched_in_comments_strings_docstrings_and_test_names() -> None:
    source = '''"""Know it no more."""
told = shall(anew)  # runs no
# more
text = f"{told} as if anew"
long = (
    "waits for "
    "ever"
)
def test_who_leads() -> None: ...
'''

    findings = prose.check_text("module.py", source)

    assert [(finding.line, finding.phrase) for finding in findings] == [
        (1, "no more"),
        (2, "no more"),
        (4, "anew"),
        (6, "for ever"),
        (9, "who"),
    ]


def test_lua_and_settings_are_searched_in_comments_only() -> None:
    assert prose.check_text("verb.lua", "local anew = 1\n-- read anew\n")[0].line == 2
    assert prose.check_text("settings.toml", 'anew = "anew"\nkey = 1  # read anew\n')[0].line == 2


def test_a_finding_is_printed_with_its_place_and_a_replacement() -> None:
    (finding,) = prose.check_text("module.py", "# It runs no more.\n")

    assert str(finding).startswith("module.py:1: 'no more': write no longer")


def test_an_allowed_text_covers_its_finding_alone() -> None:
    (entry,) = prose.allowed('[[tool.prose.allow]]\nfile = "a.md"\ntext = "runs anew"\nreason = "a quotation"\n')
    quoted, other = prose.check_text("a.md", "It runs anew." + " x" * 60 + "\nIt starts anew.\n")

    assert not entry.covers(other)
    assert not entry.used
    assert entry.covers(quoted)
    assert entry.used


def test_an_allowed_text_without_a_reason_is_refused() -> None:
    with pytest.raises(TypeError, match="reason"):
        prose.allowed('[[tool.prose.allow]]\nfile = "a.md"\ntext = "anew"\n')


def test_the_share_of_first_lines_with_a_pronoun_has_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = "".join(f'def f{number}():\n    """Return a value.\n\n    It is one.\n    """\n' for number in range(9))
    (tmp_path / "plain.py").write_text(plain + 'class C:\n    """Know it."""\n')

    assert first_lines.main([str(tmp_path)]) == 0
    assert "1 of 10 first lines of docstrings have a pronoun: 10.0%" in capsys.readouterr().out

    (tmp_path / "unclear.py").write_text('async def g():\n    """Take the hands they work with."""\n')

    assert first_lines.main(["-v", str(tmp_path)]) == 1
    assert "unclear.py:2: Take the hands they work with." in capsys.readouterr().out
