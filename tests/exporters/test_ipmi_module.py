"""How a module's password is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentinel_exporters.ipmi.errors import IpmiError
from sentinel_exporters.ipmi_module import check_password_file, read_password


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_end_of_the_line_is_not_part_of_the_password(tmp_path: Path, end: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(f" p\t{end}".encode())

    assert read_password(path) == " p\t"


def test_a_pipe_in_place_of_the_password_file_is_refused_and_not_waited_for(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "password")

    with pytest.raises(IpmiError, match=r"cannot read .*password: not a file"):
        read_password(tmp_path / "password")


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_password_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content.encode())

    with pytest.raises(IpmiError, match=r"password is empty$"):
        read_password(path)


def test_a_file_that_is_no_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("p" + "\n" * 4096)
    with pytest.raises(IpmiError, match="is longer than 4096 bytes"):
        read_password(path)

    path.write_bytes(b"\xff\xfe")
    with pytest.raises(IpmiError, match="is not UTF-8"):
        read_password(path)


def test_the_reason_why_a_password_file_cannot_be_read_is_the_systems(tmp_path: Path) -> None:
    with pytest.raises(IpmiError, match=r"cannot read .*none: No such file or directory$"):
        read_password(tmp_path / "none")
    with pytest.raises(IpmiError, match="not a file"):
        read_password(tmp_path)


def test_a_path_that_cannot_be_looked_up_is_a_problem_with_a_reason(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path / "none", "there is no file .*none$"),
        (tmp_path / ("x" * 256), "x: File name too long$"),
        (tmp_path, "is not a file$"),
    ):
        with pytest.raises(ValueError, match=problem):
            check_password_file(path)
