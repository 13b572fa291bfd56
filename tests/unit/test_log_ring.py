"""The file of the last log lines: bounded for each daemon and each host, and readable at any time."""

import os
from pathlib import Path

from celery_daemons.node.log_files import LogFiles, read_lines
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.wire.log_ring import BLOCK, BLOCKS_PER_DAEMON, BLOCKS_PER_HOST, LogRing, lines_in


def append(ring: LogRing, name: str, message: str, token: int = 1) -> None:
    """Append a line at INFO."""
    ring.append(name, token=token, at=1.5, level="INFO", logger="daemons.tail", message=message)


def messages(path: Path, name: str) -> list[str]:
    """Return the messages of a daemon."""
    return [line.message for line in lines_in(path.read_bytes(), name)]


def test_the_lines_of_each_daemon_are_read_in_their_order(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))
    for number in range(100):
        append(ring, "a", f"a {number} \n\x00 ü \ud800")
        append(ring, "b", f"b {number}")

    # When
    lines = lines_in((tmp_path / "ring").read_bytes(), "a")

    # Then
    assert [line.message for line in lines] == [f"a {number} \n\x00 ü ?" for number in range(100)]
    assert messages(tmp_path / "ring", "b") == [f"b {number}" for number in range(100)]
    assert (lines[0].token, lines[0].at, lines[0].level, lines[0].logger) == (1, 1.5, "INFO", "daemons.tail")


def test_a_line_longer_than_a_block_is_kept_whole_and_a_very_long_one_from_its_end(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))

    # When
    append(ring, "a", "x" * 5000)
    append(ring, "a", "begin" + "y" * 100_000 + "end")

    # Then
    first, second = messages(tmp_path / "ring", "a")
    assert first == "x" * 5000
    assert second.endswith("yend")
    assert len(second) == 8000


def test_a_daemon_keeps_its_newest_lines_and_takes_no_room_from_others(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))
    append(ring, "quiet", "still here")

    # When
    for number in range(5000):
        append(ring, "chatty", f"line {number} " + "x" * 50)

    # Then
    found = messages(tmp_path / "ring", "chatty")
    assert found[-1].startswith("line 4999 ")
    assert [int(text.split()[1]) for text in found] == list(range(5000 - len(found), 5000))
    assert (tmp_path / "ring").stat().st_size <= (BLOCKS_PER_DAEMON + 1) * BLOCK
    assert messages(tmp_path / "ring", "quiet") == ["still here"]


def test_the_file_of_a_host_is_bounded_and_loses_the_oldest_lines_first(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))

    # When
    for number in range(BLOCKS_PER_HOST + 100):
        append(ring, f"d.{number}", "one line")

    # Then
    assert (tmp_path / "ring").stat().st_size == BLOCKS_PER_HOST * BLOCK
    assert messages(tmp_path / "ring", "d.99") == []
    assert messages(tmp_path / "ring", "d.100") == ["one line"]
    assert messages(tmp_path / "ring", f"d.{BLOCKS_PER_HOST + 99}") == ["one line"]


def test_a_line_that_another_thread_appends_while_one_writes_is_not_lost(tmp_path: Path) -> None:
    # Given the lock is held, as in a signal handler that interrupts a write
    ring = LogRing(str(tmp_path / "ring"))
    ring._writing.acquire()

    # When
    append(ring, "a", "first")
    ring._writing.release()
    append(ring, "a", "second")

    # Then
    assert messages(tmp_path / "ring", "a") == ["first", "second"]


def test_a_fork_of_a_daemon_does_not_write_into_the_file_of_its_parent(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))
    append(ring, "a", "parent")

    # When
    pid = os.fork()
    if pid == 0:
        append(ring, "a", "child")
        os._exit(0)
    os.waitpid(pid, 0)

    # Then
    append(ring, "a", "parent again")
    assert messages(tmp_path / "ring", "a") == ["parent", "parent again"]


def test_a_file_that_is_cut_or_overwritten_loses_lines_but_never_fails(tmp_path: Path) -> None:
    # Given
    ring = LogRing(str(tmp_path / "ring"))
    for number in range(40):
        append(ring, "a", f"line {number}")
    data = (tmp_path / "ring").read_bytes()

    # When
    for end in range(0, len(data), 37):
        found = [line.message for line in lines_in(data[:end], "a")]

        # Then
        assert found == [f"line {number}" for number in range(len(found))]


def test_lines_of_a_dead_host_are_read_until_newer_dead_hosts_need_the_room(tmp_path: Path) -> None:
    # Given
    files = LogFiles(str(tmp_path))
    for number in range(1, 4):
        ring = LogRing(files.open(HostId(number)))
        append(ring, "a", f"run {number}", token=number)

    # When
    files.close(HostId(1))
    LogRing(files.open(HostId(4)))
    files.close(HostId(4))

    # Then
    assert [line.message for line in read_lines(files.paths(), "a")] == ["run 1", "run 2", "run 3"]
    assert not (tmp_path / "log-4").exists(), "the file of a host that logged nothing is kept"

    # When
    for number in range(10, 600):
        append(LogRing(files.open(HostId(number))), "b", "line")
        files.close(HostId(number))

    # Then
    assert [line.message for line in read_lines(files.paths(), "a")] == ["run 2", "run 3"]
    assert len(list(tmp_path.iterdir())) < 510


def test_a_node_without_a_folder_keeps_no_lines() -> None:
    files = LogFiles("")

    assert files.open(HostId(1)) == ""
    files.close(HostId(1))
    assert files.paths() == []
