"""The booking server's settings: where they come from, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sentinel_booking.config import Config, load_config
from sentinel_booking.errors import ConfigError
from tests.lab.certificates import Authority


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the least that is needed."""
    for name in ("secret", "scrape", "webhook"):
        (tmp_path / name).write_text(f"{name}-0123456789abcdef0123456789abcdef\n")
    path = tmp_path / "booking.toml"
    path.write_text(
        f'database_url = "sqlite:///{tmp_path}/booking.db"\n'
        f'secret_key_file = "{tmp_path}/secret"\n'
        f'scrape_token_file = "{tmp_path}/scrape"\n'
        f'webhook_token_file = "{tmp_path}/webhook"\n'
    )
    return path


def problems(path: Path | None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    return str(refused.value).splitlines()


def test_the_environment_goes_before_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(file.read_text() + "workers = 3\nthreads = 40\n")
    monkeypatch.setenv("SENTINEL_BOOKING_WORKERS", "5")
    config = load_config(file)
    assert (config.workers, config.threads) == (5, 40)


def test_every_problem_is_told_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(file.read_text() + 'workers = "many"\nno_such = 1\npublic_url = "lab"\n')
    monkeypatch.setenv("SENTINEL_BOOKING_NO_SUCH_EITHER", "1")
    found = " ".join(problems(file))
    for name in ("workers", "no_such", "public_url", "SENTINEL_BOOKING_NO_SUCH_EITHER"):
        assert name in found


@pytest.mark.parametrize(
    "line",
    [
        'database_url = "mysql://lab/booking"',
        'database_url = "sqlite://"',
        'database_url = "sqlite:///relative.db"',
        'database_url = "postgresql+psycopg2://lab/booking"',
        'database_url = "nonsense"',
        'listen = "8800"',
        'listen = "127.0.0.1:99999"',
        'grafana_url = "javascript:alert(1)"',
        "trusted_proxies = -1",
        "access_token_minutes = 0",
        "threads = 16",
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(file: Path, line: str) -> None:
    name = line.split(" ", maxsplit=1)[0]
    kept = [old for old in file.read_text().splitlines() if not old.startswith(name)]
    file.write_text("\n".join([*kept, line]))
    (problem,) = problems(file)
    assert name in problem


def test_a_password_in_the_database_address_is_not_repeated(file: Path) -> None:
    text = file.read_text().replace("sqlite:///", "mysql://sentinel:hunter2@lab/")
    file.write_text(text)
    assert "hunter2" not in " ".join(problems(file))


def test_tls_files_must_fit_and_need_no_passphrase(file: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "lab")
    one, other = (authority.sign(name, host="127.0.0.1") for name in ("one", "other"))
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "ec", "-in", one.key, "-aes128", "-passout", "pass:x", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    text = file.read_text()

    def use(certificate: object, key: object) -> None:
        given = {"tls_cert_file": certificate, "tls_key_file": key}
        lines = [f'{name} = "{value}"\n' for name, value in given.items() if value]
        file.write_text(text + "".join(lines))

    use(one.certificate, one.key)
    assert load_config(file).tls_key_file == one.key
    refused = [
        (one.certificate, None, "both or neither"),
        (None, one.key, "both or neither"),
        (one.certificate, other.key, "cannot be used"),
        (one.certificate, tmp_path / "none", "cannot be used"),
        (one.certificate, locked, "the key has a passphrase"),
    ]
    for certificate, key, why in refused:
        use(certificate, key)
        (problem,) = problems(file)
        assert "tls_cert_file" in problem
        assert why in problem


def test_secret_files_must_be_there_and_long_enough(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef")
    (tmp_path / "scrape").write_text("short")
    (tmp_path / "webhook").unlink()
    found = problems(file)
    assert len(found) == 3
    assert "0123456789abcdef" not in " ".join(found)


def test_a_file_that_is_missing_or_no_toml_is_said_so(tmp_path: Path) -> None:
    assert "not found" in problems(tmp_path / "none.toml")[0]
    (tmp_path / "bad.toml").write_text("= 1")
    assert "bad.toml" in " ".join(problems(tmp_path / "bad.toml"))


def test_settings_cannot_be_changed_afterwards(file: Path) -> None:
    config: Config = load_config(file)
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 9
