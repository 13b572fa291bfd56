"""The shape of the source tree: the length of files, and Lua files whose header states their contract."""

import ast
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

#: Lines above which a file probably holds two ideas and should be split.
LONGEST = 300
#: Longer files, as the test prints their path: how long each may be, and why the file is not split. An entry may shrink
#: and must go once the file fits; an entry that is higher than the file is long fails, so that files cannot grow back.
EXCEPTIONS: dict[str, tuple[int, str]] = {}
#: Module names that several packages have: each package of a process has its entry point.
ENTRY_POINTS = {"__init__", "__main__", "main"}

TESTS = Path(__file__).resolve().parents[1]


def package() -> Path:
    """Return the folder of the package under test: of the checkout, or of an installed wheel."""
    spec = find_spec("celery_daemons")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


PACKAGE = package()
SOURCES = sorted(path for folder in (PACKAGE, TESTS) for suffix in ("*.py", "*.lua") for path in folder.rglob(suffix))
LUA = sorted(PACKAGE.rglob("*.lua"))


def shown(path: Path) -> str:
    """Return the path of a file relative to the project."""
    root = PACKAGE.parent if path.is_relative_to(PACKAGE) else TESTS.parent
    return str(path.relative_to(root))


def header(path: Path) -> list[str]:
    """Return the comment lines at the top of a Lua file, without the dashes."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return lines


def code(path: Path) -> str:
    """Return a Lua file without its comments."""
    return re.sub(r"--.*", "", path.read_text())


def indices(text: str, array: str) -> set[int]:
    """Return the indices at which ``text`` names elements of KEYS or ARGV: ``KEYS[2]``, or ``KEYS[2..4]``."""
    found: set[int] = set()
    for first, last in re.findall(array + r"\[(\d+)(?:\.\.(\d+))?\]", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


def test_the_tree_has_sources_to_check() -> None:
    assert len(SOURCES) > 10
    assert LUA, "no Lua file beside the store: it was not packaged"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_file_is_no_longer_than_the_limit(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    if shown(path) not in EXCEPTIONS:
        assert lines <= LONGEST, f"{shown(path)} has {lines} lines; split it by subject, or list it with a reason"


def test_an_exception_to_the_limit_has_a_reason_and_only_shrinks() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in SOURCES}
    for name, (allowed, reason) in EXCEPTIONS.items():
        assert reason, f"{name} is listed without a reason"
        assert LONGEST < lengths[name] == allowed, f"{name} has {lengths[name]} lines: correct or remove its entry"


def test_a_class_name_is_used_once_in_the_package() -> None:
    trees = [ast.parse(path.read_text()) for path in SOURCES if path.suffix == ".py" and path.is_relative_to(PACKAGE)]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))

    assert [name for name, uses in names.items() if uses > 1] == []


def test_a_module_name_is_used_once_in_the_package() -> None:
    names = Counter(path.stem for path in SOURCES if path.suffix == ".py" and path.is_relative_to(PACKAGE))

    assert {name for name, uses in names.items() if uses > 1} <= ENTRY_POINTS


@pytest.mark.parametrize("path", LUA, ids=shown)
def test_a_lua_file_begins_with_its_name_and_purpose(path: Path) -> None:
    first = next(iter(header(path)), "")
    name = re.escape(path.stem.lstrip("_"))

    assert re.match(rf"_?{name}: \S", first), f"{shown(path)} begins with {first!r}, not with '-- {path.stem}: …'"


@pytest.mark.parametrize("path", [path for path in LUA if not path.name.startswith("_")], ids=shown)
def test_a_lua_verb_documents_its_keys_arguments_and_replies(path: Path) -> None:
    documented = "\n".join(header(path))

    assert "KEYS[1]" in documented, f"{shown(path)} does not list its keys in its header"
    assert re.search(r"^Returns ", documented, re.MULTILINE), f"{shown(path)} does not say what it returns"
    for array in ("KEYS", "ARGV"):
        missing = indices(code(path), array) - indices(documented, array)
        assert not missing, f"{shown(path)} uses {array}{sorted(missing)} without a line in its header"


@pytest.mark.parametrize("path", LUA, ids=shown)
def test_a_lua_file_never_walks_the_whole_keyspace(path: Path) -> None:
    calls = re.findall(r"redis\.p?call\(\s*['\"](\w+)['\"]", code(path))

    forbidden = {"KEYS", "SCAN", "RANDOMKEY", "FLUSHDB", "FLUSHALL"} & {call.upper() for call in calls}
    assert not forbidden, f"{shown(path)} calls {forbidden}, which takes longer with every key in Redis"
