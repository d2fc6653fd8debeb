#!/usr/bin/env python
"""Shows that the image works, where there is no container engine (Linux, as root).

Does every step of deploy/Dockerfile in a bare Debian root, honouring its .dockerignore. Then runs the gateway
and a worker of compose.yaml from the result: as the image's user, without rights, on a read-only root, in a
network of their own. Packages come from where this machine's apt and pip get theirs. Needs
debootstrap, ip, pkill and 1 GB of memory.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import requests
import yaml
from dockerfile_parse import DockerfileParser

from dtq.client import Client
from dtq.errors import DtqError
from dtq.lab.cluster.waiting import until
from dtq.processes.children import Children
from dtq.redis_server import RedisServer

PROJECT = Path(__file__).resolve().parent.parent
DOCKERFILE = PROJECT / "deploy/Dockerfile"
HOST = "run/host"  # where a root sees this machine while it is built, for pip's settings and certificates
NO_RIGHTS = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


class Image:
    """What deploy/Dockerfile makes, read-only. The steps alone see the network, as process `caller` does."""

    def __init__(self, work: Path, caller: int) -> None:
        self.work, self.online = work, ["nsenter", f"--net=/proc/{caller}/ns/net"]
        self.stages: dict[str, Path] = {}  # their roots
        self.copy_context()
        steps = DockerfileParser(str(DOCKERFILE)).structure
        for step in [step for step in steps if step["instruction"] != "COMMENT"]:
            instruction, value, line = step["instruction"], step["value"], step["startline"] + 1
            click.echo(f"Line {line}: {instruction} {' '.join(value.split())}")
            try:
                self.step(instruction, value)
            except DtqError as error:
                raise DtqError(f"Line {line} of deploy/Dockerfile, {instruction}: {error}") from None
        self.make_read_only()

    def copy_context(self) -> None:
        """Copies what .dockerignore lets through: of all (`*`) what is named (`!`), without some (`**/`)."""
        text = Path(f"{DOCKERFILE}.dockerignore").read_text()
        if not re.fullmatch(r"(#.*\n)*\*\n(!.+\n)+(\*\*/.+\n)*", text):
            raise DtqError("deploy/Dockerfile.dockerignore has more than a *, then !NAME, then **/NAME.")
        kept = re.findall(r"^!(.+)", text, re.M)
        left = [f"--exclude={name}" for name in re.findall(r"^\*\*/(.+)", text, re.M)]
        do("tar", "-cf", self.work / "context.tar", "-C", PROJECT, *left, *kept)
        do("tar", "-xf", self.work / "context.tar", f"--one-top-level={self.work}/context")

    def step(self, instruction: str, value: str) -> None:
        match instruction:
            case "FROM":
                self.begin(value)
            case "RUN":
                do(*self.online, *self.enter(["/bin/sh", "-c", value], pip_settings()))
            case "COPY":
                self.copy(value.split())
            case "ENV":  # its NAME=value pairs are what a shell exports
                self.exports += f"; export {value}"
            case "WORKDIR" | "USER" | "STOPSIGNAL" | "HEALTHCHECK" | "CMD" | "LABEL" | "EXPOSE":
                self.said[instruction] = value
                do("mkdir", "-p", f"{self.root}{self.said['WORKDIR']}")
            case _:
                raise DtqError("this script does not know it")

    def begin(self, value: str) -> None:
        """Makes the root of a stage: a copy of a Debian with nothing but what every Debian has."""
        found = re.fullmatch(r"debian:(\w+)-slim(?: AS (\w+))?", value)
        if not found:
            raise DtqError("it is not debian:RELEASE-slim")
        base = self.work / "base"
        if not base.exists():  # from the mirror of this machine's apt, if it has one for the release
            mirrors = do("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Release: {found[1]}").split()
            do(*self.online, "debootstrap", "--variant=minbase", found[1], base, *mirrors[:1])
            (base / "etc/apt/apt.conf.d/99host").write_text(do("apt-config", "dump", "Acquire"))
            (base / "etc/hosts").write_text(do("sed", "1i 127.0.0.1 redis gateway", "/etc/hosts"))
        self.root = self.stages[found[2]] = self.work / f"stage{len(self.stages)}"
        self.exports = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.said = {"USER": "0:0", "WORKDIR": "/"}  # by instruction
        do("cp", "-a", base, self.root)
        do("mount", "-t", "proc", "proc", self.root / "proc")
        do("mount", "-o", "X-mount.mkdir", "--rbind", "/", self.root / HOST)

    def copy(self, words: list[str]) -> None:
        """Into a folder, as all the Dockerfile's targets are. Files belong to root, whoever has them here."""
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        origin = self.stages[flags["from"]] if "from" in flags else self.work / "context"
        paths = [Path(f"{origin}/{source}") for source in sources]
        place = Path(f"{self.root}{Path(self.said['WORKDIR'], target)}")
        do("mkdir", "-p", place)
        inside = [f"{path}/." if path.is_dir() else path for path in paths]  # of a folder, what is in it
        do("cp", "-a", "--no-preserve=ownership", *inside, place)
        if "chmod" in flags:
            do("chmod", flags["chmod"], *[place / path.name for path in paths])

    def enter(self, command: list[str], environment: dict[str, str]) -> list[str]:
        """What runs a command in the root, as its user, with nothing of this process's environment."""
        uid, gid = self.said["USER"].split(":")
        user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", *NO_RIGHTS] if uid != "0" else []
        shell = ["/bin/sh", "-ec", f'{self.exports}; cd {self.said["WORKDIR"]}; exec env "$@"', "sh"]
        given = [f"{name}={value}" for name, value in environment.items()]
        return ["chroot", str(self.root), "env", "-i", *user, *shell, *given, *command]

    def make_read_only(self) -> None:
        """As `read_only` and a tmpfs for /tmp make it. The new mount hides those that the build needed."""
        do("mount", "-o", "bind,ro", self.root, self.root)
        for kind, place in (("proc", "proc"), ("tmpfs", "tmp"), ("tmpfs", "dev/shm")):
            do("mount", "-t", kind, kind, self.root / place)


def pip_settings() -> dict[str, str]:
    """How this machine's pip reaches the world; its files are seen below HOST."""
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found = re.findall(r"^(?:global|install)\.([\w-]+)='(.*)'$", listing.stdout, re.M)
    told = {f"PIP_{name.upper().replace('-', '_')}": value.replace("\\n", " ") for name, value in found}
    told |= {
        name: os.environ[name] for name in os.environ if re.match("(?i)PIP_|.*_proxy$|REQUESTS_CA", name)
    }
    return {name: re.sub(r"(^|\s|file://)(/\S+)", rf"\1/{HOST}\2", value) for name, value in told.items()}


class Services:
    """Runs services of compose.yaml from the image."""

    def __init__(self, image: Image) -> None:
        self.image, self.processes = image, Children()
        health = json.loads(image.said["HEALTHCHECK"].partition("CMD ")[2])
        usual = {"command": json.loads(image.said["CMD"]), "healthcheck": {"test": ["CMD", *health]}}
        text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", (PROJECT / "compose.yaml").read_text())
        services = yaml.safe_load(re.sub(r"\$\{REDIS_PASSWORD:.*?\}", "secret", text))["services"]
        self.services = {name: usual | service for name, service in services.items()}

    def start_redis(self, directory: Path) -> None:
        """With this machine's server, and the options of the service's command."""
        words = shlex.split(self.services["redis"]["command"])[1:]
        options = {name[2:]: shlex.quote(value) for name, value in zip(words[::2], words[1::2], strict=True)}
        RedisServer(directory, 6379, processes=self.processes, options=options).start()

    def start(self, name: str) -> None:
        """Starts a service, and waits until its health check is content, or it has ended."""
        command = self.services[name]["command"]
        self.processes.start(name, self.image.enter(command, self.services[name]["environment"]))
        until(lambda: self.is_healthy(name) or self.processes.exit_code(name) is not None, f"{name} starts")
        show(self.is_healthy(name), f"{name}: {' '.join(command)} is healthy")

    def is_healthy(self, name: str) -> bool:
        return self.run(name, *self.services[name]["healthcheck"]["test"][1:]).returncode == 0

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker compose run --rm NAME COMMAND…`."""
        entered = self.image.enter([*command], self.services[name]["environment"])
        return subprocess.run(entered, capture_output=True, text=True)

    def stop(self, name: str) -> None:
        """As `docker compose stop NAME`; it has to end in time, and well."""
        grace = float(self.services[name]["stop_grace_period"].removesuffix("s"))
        show(self.processes.stop(name, grace) == 0, f"{name}: SIGTERM ends it with 0")


def try_out(services: Services, directory: Path) -> None:
    """From the first key to the last signal."""
    services.start_redis(directory)
    services.start("gateway")
    refused = requests.get("http://127.0.0.1:5000/tasks", timeout=30, proxies={"no_proxy": "*"})
    show(refused.status_code == 401, "gateway: without a key the answer is 401")
    created = services.run("worker", "dtq", "key", "create", "--name", "me", "--scope", "admin")
    show(created.returncode == 0, "worker: dtq key create prints a key")
    services.start("worker")
    client = Client("http://127.0.0.1:5000", created.stdout.strip())
    task_id = client.submit("process", "x")
    show(bool(task_id), "gateway: with the key a task is taken")
    show(client.wait(task_id, 30, progress=False).status == "completed", "worker: the task is completed")
    for place in ("/app", "/opt/dtq"):
        touched = services.run("worker", "touch", f"{place}/file")
        show(touched.returncode == 1, f"worker: {place} cannot be written to")
    for name in ("worker", "gateway"):
        services.stop(name)
    for name in ("gateway", "worker"):
        show(not services.is_healthy(name), f"{name}: once it has ended, its health check says so")
    services.stop("redis")


def do(*command: str | Path) -> str:
    """Runs a command and returns what it says; where it fails, the end of that is shown."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        click.echo("\n".join(done.stdout.splitlines()[-30:]))
        raise DtqError(f"exit code {done.returncode}")
    return done.stdout


def show(is_so: bool, what: str) -> None:
    if not is_so:
        raise DtqError(f"NOT SHOWN: {what}")
    click.echo(f"shown: {what}")


@click.command(help=__doc__)
@click.option("--inside", type=(click.Path(path_type=Path), int), hidden=True)
def main(inside: tuple[Path, int] | None) -> None:
    try:
        if inside is None:
            sys.exit(apart())
        work, caller = inside
        do("mount", "-t", "tmpfs", "tmpfs", work)
        do("ip", "link", "set", "lo", "up")
        try_out(Services(Image(work, caller)), work / "redis")
    except DtqError as error:
        sys.exit(f"scripts/bare_root.py: {error}")


def apart() -> int:
    """Runs this script with mounts, processes and a network of its own, which the system ends with it."""
    if os.geteuid() != 0 or subprocess.getstatusoutput("which debootstrap ip pkill")[0] != 0:
        raise DtqError("needs root, debootstrap, ip and pkill (apt-get install debootstrap iproute2 procps)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with TemporaryDirectory(prefix="bare_root.") as work:
        namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        command = [sys.executable, "-B", __file__, "--inside", work, str(os.getpid())]
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *namespaces, *command])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: end(process))
        return process.wait()


def end(unshare: subprocess.Popen[bytes]) -> None:
    """Kills the first process inside. `unshare` then ends when all others there have ended too: only then can
    the folder be removed, since they would go on to write into it.
    """
    if subprocess.run(["pkill", "-KILL", "--parent", str(unshare.pid)]).returncode != 0:
        unshare.kill()  # nothing is inside yet


if __name__ == "__main__":
    main()
