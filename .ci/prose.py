"""Find phrases that the style guide bans in comments, docstrings, strings, test names and Markdown.

    python .ci/prose.py [FILE …]

Prints ``file:line: phrase: replacement`` for each finding and exits with 1 if there are any. A finding that is correct
English where it stands is allowed in ``pyproject.toml``, with the reason; an entry that matches nothing is an error:

    [[tool.prose.allow]]
    file = "docs/explanation/concepts.md"
    text = "people of one team who"
    reason = "these are people"
"""

import argparse
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Folders below which nothing of the project's own stands.
SKIPPED_FOLDERS: Final = frozenset({".git", ".venv", ".venv-peers", "build", "dist", "site", "__pycache__"})
#: These quote the banned phrases.
SKIPPED_FILES: Final = frozenset({".ci/prose.py", "tests/unit/test_prose.py"})

#: "Who" is right for people, and wrong for processes: one of these stands up to three words before it.
_PERSON: Final = re.compile(
    r"\b(?:people|persons?|users?|operators?|contributors?|maintainers?|engineers?|readers?|authors?|developers?|"
    r"teams?|attackers?|reviewers?|reporters?|humans?|newcomers?|anyone|someone|everyone|anybody|somebody)"
    r"(?:\s+\S+){0,3}\s*$",
    re.IGNORECASE,
)
_PROCESSES: Final = r"(?:daemon|host|node|worker|neighbou?r|process|agent|monitor|restart|task|lease)"
_LEAVING: Final = (
    r"(?:leav\w+|left|stop\w*|end(?:s|ed|ing)?|dies?|comes?|coming|go|goes|going|gone|exit\w*|drain\w*|mov\w+|"
    r"shuts? down|shutting down|gives? back|handed over|hands? over)"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A banned phrase: ``pattern`` finds it, ``accept`` returns whether the words around it make it correct."""

    pattern: re.Pattern[str]
    replacement: str
    accept: Callable[[str, re.Match[str]], bool] = lambda _text, _found: False


@dataclass(frozen=True, slots=True)
class Finding:
    """A banned phrase in a file."""

    file: str
    line: int
    phrase: str
    replacement: str
    context: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.phrase!r}: write {self.replacement}"


def _of_people(text: str, found: re.Match[str]) -> bool:
    """Return whether the relative clause is about people, or the sentence is a question."""
    asks = re.match(r"[^.;:!?]*\?", text[found.start() :])
    return bool(asks) or bool(_PERSON.search(text[: found.start()]))


def _rule(words: str, replacement: str, accept: Callable[[str, re.Match[str]], bool] | None = None) -> Rule:
    pattern = re.compile(words.replace(" ", r"\s+"), re.IGNORECASE)
    return Rule(pattern, replacement, accept) if accept else Rule(pattern, replacement)


RULES: Final = (
    _rule(r"\bshall\b", "should, will or must"),
    _rule(r"\bno more\b(?! than\b)(?!(?: [\w-]+){1,3} than\b)", "no longer, no further, or say what has ended"),
    _rule(r"\bany ?more\b(?! than\b)(?!(?: [\w-]+){1,3} than\b)", "no longer, or any further"),
    _rule(r"\banew\b", "again, or from scratch"),
    _rule(r"\bbef[ae]ll(?:s|en)?\b", "happened"),
    _rule(r"\bfor ever\b", "forever"),
    _rule(r"\bso as (?:not )?to\b", "to, or to avoid"),
    _rule(r"\btold\b(?! apart\b)(?!(?: \w+)? from\b)", "reported, notified, or the fact itself"),
    _rule(
        r"\btell(?:s|ing)?\b(?! (?:you|pip|mypy|ruff|pytest)\b)(?! (?:\w+ ){0,3}apart\b)(?! (?:if|whether|from)\b)"
        r"(?! (?:\w+ ){1,4}from\b)",
        "report, notify, show or say",
    ),
    _rule(r"\b(?:over)?hear(?:s|d|ing)?\b", "receive, or learn"),
    _rule(r"\blook(?:s|ed|ing)? (?:at|after)\b", "check, poll, read, or watch"),
    _rule(r"\b(?:two|between|next|each|every|last|another|one|a|of) looks?\b(?!-| (?:up|like)\b)", "check or poll"),
    _rule(r"\bwho(?:so)?ever\b", "any node (process, client) that"),
    _rule(r"\bwhom?\b(?!['’])", "a node (process, daemon) that, or name the noun", _of_people),
    _rule(r"(?-i:\bWhose\b)", "the owner's noun", _of_people),
    _rule(rf"\b{_LEAVING}(?: [\w-]+){{0,2}} in order\b(?! (?:to|of|that|per|by)\b)", "gracefully"),
    _rule(r"\bcost(?:s|ing)? (?:its|their|his|her)\b", "delays, kills, restarts or loses"),
    _rule(rf"\bcost(?:s|ing)? (?:an?|the|one|each|every|no|other|another) {_PROCESSES}\w*", "delays, kills or loses"),
    _rule(r"\b(?:is|are|was|were|be) the ones? (?:that|who|which)\b", "the noun and the verb"),
    _rule(r"\bas far as (?:anybody|anyone|it|he|she|they) knows?\b", "as far as the node knows, or cut"),
    _rule(r"\bfor (?:the )?want of\b", "without"),
    _rule(r"\bof whatever (?:origin|kind|sort)\b", "any, or cut"),
    _rule(r"\bwithout a word\b", "without a notice"),
    _rule(r"\bas good as lost\b", "lost"),
)


def check_text(file: str, text: str) -> list[Finding]:
    """Return the banned phrases in a file, ordered by line."""
    findings: dict[tuple[int, str], Finding] = {}
    for block in _blocks(file, text):
        # Blanks instead of code: `told` in backticks is an identifier, and line and column stay as they are.
        plain = re.sub(r"`+[^`]+`+", _blank, block.text)
        for rule in RULES:
            for found in rule.pattern.finditer(plain):
                if rule.accept(plain, found):
                    continue
                line = block.line(found.start())
                phrase = " ".join(found[0].split())
                around = " ".join(block.text[max(0, found.start() - 60) : found.end() + 60].split())
                findings.setdefault((line, phrase.lower()), Finding(file, line, phrase, rule.replacement, around))
    return sorted(findings.values(), key=lambda finding: finding.line)


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


@dataclass(frozen=True, slots=True)
class _Block:
    """Text that reads as one piece; ``pieces`` are the offsets at which the lines of the file begin."""

    text: str
    pieces: tuple[tuple[int, int], ...]

    def line(self, offset: int) -> int:
        return max(number for start, number in self.pieces if start <= offset)


def _block(lines: Iterable[tuple[int, str]]) -> _Block:
    text, pieces = "", []
    for number, line in lines:
        pieces.append((len(text), number))
        text += line
        if not line.endswith(" "):
            text += "\n"
    return _Block(text, tuple(pieces))


def _blocks(file: str, text: str) -> Iterator[_Block]:
    suffix = Path(file).suffix
    lines = list(enumerate(text.splitlines(), 1))
    if suffix == ".py":
        yield from _python(text)
    elif suffix == ".md":
        yield _block(lines)
    else:
        mark = r"--+" if suffix == ".lua" else r"(?:(?<=\s)|^)#+"
        comments = [(number, found[1]) for number, line in lines if (found := re.search(rf"{mark}\s?(.*)$", line))]
        yield from _adjacent(comments)


def _adjacent(lines: Iterable[tuple[int, str]]) -> Iterator[_Block]:
    """Join comments of adjacent lines: a phrase may be wrapped."""
    run: list[tuple[int, str]] = []
    for number, line in lines:
        if run and number != run[-1][0] + 1:
            yield _block(run)
            run = []
        run.append((number, line))
    if run:
        yield _block(run)


def _python(text: str) -> Iterator[_Block]:
    """Yield comments, strings and names of tests."""
    comments: list[tuple[int, str]] = []
    string: list[tuple[int, str]] = []
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        first = token.start[0]
        if kind == "COMMENT":
            comments.append((first, token.string.lstrip("#: ")))
        elif kind == "STRING":
            string += list(enumerate(_inner(token.string).split("\n"), first))
        elif kind in {"FSTRING_MIDDLE", "TSTRING_MIDDLE"}:
            string += list(enumerate(token.string.split("\n"), first))
        elif kind == "NAME" and previous == "def" and token.string.startswith("test_"):
            yield _block([(first, token.string.replace("_", " "))])
        elif kind not in {"NL", "FSTRING_START", "FSTRING_END", "TSTRING_START", "TSTRING_END"} and string:
            yield _block(string)
            string = []
        previous = token.string
    if string:
        yield _block(string)
    yield from _adjacent(comments)


def _inner(literal: str) -> str:
    """Return what a string literal holds, as it stands in the file, and without the expressions of an f-string."""
    found = re.match(r"(?is)([a-z]*)('''|\"\"\"|'|\")(.*)\2$", literal)
    if found is None:
        return literal
    return re.sub(r"\{[^{}]*\}", _blank, found[3]) if "f" in found[1].lower() else found[3]


@dataclass(slots=True)
class Allowed:
    """An entry of ``[[tool.prose.allow]]``."""

    file: str
    text: str
    reason: str
    used: bool = False

    def covers(self, finding: Finding) -> bool:
        """Return whether the finding stands in the allowed text, and remember that the entry is needed."""
        matches = finding.file == self.file and " ".join(self.text.split()) in finding.context
        self.used = self.used or matches
        return matches


def allowed(pyproject: str) -> list[Allowed]:
    """Return the entries of ``[[tool.prose.allow]]``; an entry without a reason is an error."""
    return [Allowed(**entry) for entry in tomllib.loads(pyproject).get("tool", {}).get("prose", {}).get("allow", [])]


def sources(root: Path) -> Iterator[Path]:
    """Yield the files of the project that hold prose."""
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        hidden = [part for part in inside.parts if part.startswith(".") and part not in {".ci", ".github"}]
        if SKIPPED_FOLDERS.intersection(inside.parts) or (hidden and len(inside.parts) > 1):
            continue
        if str(inside) in SKIPPED_FILES or not path.is_file():
            continue
        if path.suffix in {".py", ".lua", ".md", ".toml", ".yml", ".yaml"} or path.name in {"Makefile", "run"}:
            yield path


def main(arguments: list[str] | None = None) -> int:
    """Check the given files, or the whole project; return the exit status."""
    parser = argparse.ArgumentParser(description="Find phrases that the style guide bans.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    given = [path.resolve() for path in parser.parse_args(arguments).files]
    entries = allowed((ROOT / "pyproject.toml").read_text())
    findings = [
        finding
        for path in sources(ROOT)
        if not given or path in given
        for finding in check_text(str(path.relative_to(ROOT)), path.read_text())
        if not any(entry.covers(finding) for entry in entries)
    ]
    for finding in findings:
        print(finding)
    unused = [entry for entry in entries if not entry.used and not given]
    for entry in unused:
        print(f"pyproject.toml: [[tool.prose.allow]] for {entry.file}, {entry.text!r} allows nothing: remove it")
    if findings:
        print(f"{len(findings)} banned phrases")
    return 1 if findings or unused else 0


if __name__ == "__main__":
    sys.exit(main())
