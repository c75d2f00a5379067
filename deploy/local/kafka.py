"""A real Apache Kafka on this machine: one KRaft node or a cluster of three, from its own jars, with the Java that is at hand."""

import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.local import jars, java, processes
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.sync import wait_for

NAME = "kafka"
VERSION = "4.3.1"
CLUSTER = 3
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false

# After a crash a node waits until its former self has expired: seconds instead of 9.
broker.session.timeout.ms={session}
broker.heartbeat.interval.ms=400

# A group's members need not wait for more of them. Of three copies two must have what is acknowledged.
offsets.topic.num.partitions=5
offsets.topic.replication.factor={replication}
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync}
min.insync.replicas={in_sync}
group.initial.rebalance.delay.ms=0

# Small: many topics of many tests on one machine.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
log.segment.delete.delay.ms=1000
"""


def names(home: Home) -> tuple[str, ...]:
    """The brokers of this home: `kafka`, or `kafka-1` to `kafka-3`."""
    count = home.state().brokers or 1
    return (NAME,) if count == 1 else tuple(f"{NAME}-{number}" for number in range(1, count + 1))


def proxy_port(name: str) -> str:
    """Under this name the home keeps the port of a proxy before a broker. A broker that has one when it starts gets a second
    listener, on the port `listener_port(name)`, that tells clients the proxy's address: who enters there stays behind the proxies."""
    return f"{name}-proxy"


def listener_port(name: str) -> str:
    """Under this name the home keeps the port on which a broker awaits what comes through its proxy."""
    return f"{name}-proxied"


def start(home: Home, brokers: int | None = None) -> str:
    """Start the brokers that do not run, three of them if `brokers` says so at the first start; the bootstrap address once each
    answers with metadata. Raises UserError when the home was set up with another number: its data are spread over that many."""
    _settle(home, brokers)
    members = names(home)
    if not any(processes.pid_of(home, name) for name in members):
        for name in members:  # once one runs, it knows the others by their ports
            for port in _ports(home, name):
                home.usable_port(port)
    with ThreadPoolExecutor(len(members)) as pool:
        list(pool.map(partial(launch, home), members))
    for name in members:
        _wait_until_ready(home, name)
    return ",".join(address(home, name) for name in members)


def start_broker(home: Home, name: str) -> None:
    """Start one broker of a cluster; return when it answers and the cluster has taken it in."""
    launch(home, name)
    _wait_until_ready(home, name)


def launch(home: Home, name: str) -> None:
    """Start one broker unless it runs, without waiting for it: alone of three it is ready only when another one is there."""
    if processes.pid_of(home, name) is None:
        heap = "-Xmx512m" if name == NAME else "-Xmx256m"
        classpath = os.pathsep.join(str(jar) for jar in jars.resolve(jars.lock(), jars.cache()))
        command: list[str | Path] = [java.find(), heap, *_JVM, "-cp", classpath]
        properties = home.path / name / "server.properties"
        properties.parent.mkdir(parents=True, exist_ok=True)
        properties.write_text(_properties(home, name))
        _format(home, name, command, properties)
        processes.start(home, name, [*command, "kafka.Kafka", properties])


def stop(home: Home) -> None:
    """Stop all brokers in order, or for certain when that takes too long: the last ones of a cluster cannot end in order,
    since nobody is left to hand over to."""
    members = names(home)
    processes.stop_all(home, members, timeout=20 if len(members) == 1 else 4)


def address(home: Home, name: str) -> str:
    """Where a broker answers its clients directly."""
    return f"127.0.0.1:{home.port(name)}"


def answers(bootstrap: str, cluster_id: str | None = None, node: int | None = None) -> bool:
    """Whether the cluster (this very one) names a live broker (this very one): an open port may be anyone's, or not be served yet."""
    host, port = bootstrap.split(",", maxsplit=1)[0].rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        metadata = wait_for(_metadata(bootstrap))
    except (OSError, KafkaError):
        return False
    live = {broker["node_id"] for broker in metadata["brokers"]}
    return bool(live if node is None else live & {node}) and cluster_id in (None, metadata["cluster_id"])


def is_ready(home: Home, name: str) -> bool:
    """Whether a broker of this home answers and is counted among the live ones."""
    return answers(address(home, name), home.state().cluster_id, node_id(name))


def node_id(name: str) -> int:
    """The number of a broker in its cluster."""
    return int(name.rpartition("-")[2]) if name != NAME else 1


def data(home: Home, name: str) -> Path:
    """Where a broker keeps its logs."""
    return home.path / name / "data"


def _settle(home: Home, brokers: int | None) -> None:
    if brokers not in (None, 1, CLUSTER):
        raise UserError(f"{brokers} brokers: one is enough to work with, {CLUSTER} survive the loss of one; other numbers are not offered")
    with home.changing() as state:
        if state.brokers is None:
            state.brokers = brokers or 1
        if brokers not in (None, state.brokers):
            raise UserError(f"{home.path} was set up with {state.brokers} broker(s), and its data with it; `backorder reset` begins anew")


def _ports(home: Home, name: str) -> list[str]:
    proxied = [listener_port(name)] if proxy_port(name) in home.state().ports else []
    return [name, _controller(name), *proxied]


def _controller(name: str) -> str:
    return f"{name}-controller"


def _properties(home: Home, name: str) -> str:
    members = names(home)
    listeners = [f"PLAINTEXT://{address(home, name)}"]
    advertised = listeners.copy()
    if proxy_port(name) in home.state().ports:
        listeners.append(f"PROXIED://127.0.0.1:{home.port(listener_port(name))}")
        advertised.append(f"PROXIED://127.0.0.1:{home.port(proxy_port(name))}")
    return _PROPERTIES.format(
        node=node_id(name),
        voters=",".join(f"{node_id(member)}@127.0.0.1:{home.port(_controller(member))}" for member in members),
        listeners=",".join(listeners),
        advertised=",".join(advertised),
        controller_port=home.port(_controller(name)),
        data=data(home, name),
        # Three on a busy machine need more patience with one another.
        session=1500 if len(members) == 1 else 3000,
        replication=len(members),
        in_sync=max(1, len(members) - 1),
    )


def _wait_until_ready(home: Home, name: str) -> None:
    processes.wait_until(home, name, partial(is_ready, home, name), timeout=60)


def _format(home: Home, name: str, command: list[str | Path], properties: Path) -> None:
    """Prepare the data folder once. What an interrupted attempt left behind holds nothing yet and is made anew."""
    done = home.path / name / "formatted"
    if done.exists():
        return
    shutil.rmtree(data(home, name), ignore_errors=True)
    arguments = [*command, "kafka.tools.StorageTool", "format", "-t", home.state().cluster_id, "-c", properties]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UserError(f"Kafka could not prepare {data(home, name)}:\n{result.stdout}{result.stderr}")
    done.touch()


async def _metadata(bootstrap: str) -> dict[str, Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=3_000)
    try:
        await client.start()
        answer: dict[str, Any] = await client.describe_cluster()
        return answer
    finally:
        await client.close()
