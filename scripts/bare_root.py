#!/usr/bin/env python
"""Shows that the image works, where there is no container engine (Linux, as root, with debootstrap):

    scripts/bare_root.py

Does every step of deploy/Dockerfile in a bare Debian root, honouring its .dockerignore. Then runs the gateway
and a worker of compose.yaml from the result: as the image's user, without rights, on a read-only root, in a
network of their own. Packages come from where this machine's apt and pip get theirs.
"""

import ctypes
import fcntl
import io
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from typing import Any

import click
import yaml
from dockerfile_parse import DockerfileParser

from dtq.redis_server import find_program

HOST = "run/host"  # where a root sees this machine while it is built, for pip's settings and certificates
PATIENCE = 120.0  # seconds
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1
NOTHING: Mapping[str, str] = {}
NO_RIGHTS = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


class Failed(Exception):
    """A step, or what was to be shown, did not work out."""


# ---------------------------------------------------------------- the bare root


def bootstrap(base: Path, release: str) -> None:
    """A Debian with nothing but what every Debian has, as in the slim images."""
    here = platform.freedesktop_os_release()
    mirror = apt_mirror() if here["ID"] == "debian" else ""  # debootstrap knows one of its own
    do("debootstrap", "--variant=minbase", release, base, *filter(None, [mirror]))
    if here.get("VERSION_CODENAME") == release:  # with the security fixes
        for file in Path("/etc/apt/sources.list.d").glob("debian.sources"):
            shutil.copy(file, base / "etc/apt/sources.list.d")
            (base / "etc/apt/sources.list").write_text("")
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = re.findall(r"^Acquire::(?:https?|Check-|Retries|ForceIPv).*$", dump, re.MULTILINE)
    wanted += ['Dir::Cache::pkgcache "";', 'Dir::Cache::srcpkgcache "";']  # as in the slim images
    wanted += ['APT::Keep-Downloaded-Packages "false";']
    (base / "etc/apt/apt.conf.d/99host").write_text("\n".join([*wanted, ""]))
    do("chroot", base, "apt-get", "clean")


def apt_mirror() -> str:
    """Of this machine, whichever way its sources are written down."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*"))]
    text = "\n".join(file.read_text() for file in files if file.exists())
    found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def host_environment() -> dict[str, str]:
    """How this machine reaches the world; its files are seen below HOST."""
    names = re.compile(r"(?i)(https?|no)_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
    environment = {name: value for name, value in os.environ.items() if names.fullmatch(name)}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    for name, value in re.findall(r"^(?:global|install|:env:)\.([\w.-]+)='(.*)'$", listing, re.MULTILINE):
        environment["PIP_" + name.lstrip(".").upper().replace("-", "_")] = value.replace("\\n", " ")
    files = re.compile(r"(^|\s|file://)(/[^\s]+)")
    return {name: files.sub(rf"\1/{HOST}\2", value) for name, value in environment.items()}


# ---------------------------------------------------------------- the Dockerfile's steps


class Stage:
    """A root and what is known of it: all that becomes of an image."""

    def __init__(self, root: Path, context: Path, ignored: "Ignored", stages: Mapping[str, "Stage"]) -> None:
        self.root, self.context, self.ignored, self.stages = root, context, ignored, stages
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user, self.workdir, self.stop_signal = "0:0", "/", "SIGTERM"
        self.command: list[str] = []
        self.health: list[str] = []

    def step(self, instruction: str, value: str) -> None:
        method: Callable[[str], None] | None = getattr(self, f"do_{instruction.lower()}", None)
        if method is None:
            raise Failed(f"{instruction} is not known to this script")
        method(value)

    def do_run(self, value: str) -> None:
        command = json.loads(value) if value.startswith("[") else ["/bin/sh", "-c", value]
        (self.root / HOST).mkdir(parents=True)
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.root / "etc")
        with mounted("--rbind", "/", self.root / HOST), mounted("-t", "proc", "proc", self.root / "proc"):
            do(*self.enter(command, host_environment()))
        (self.root / HOST).rmdir()

    def do_copy(self, value: str) -> None:
        words = shlex.split(value)
        flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        place = self.root / os.path.join(self.workdir, target).lstrip("/")
        for source in sources:
            if "from" in flags:
                place.parent.mkdir(parents=True, exist_ok=True)
                do("cp", "-a", self.stages[flags["from"]].root / source.lstrip("/"), place)
            else:
                self._copy_context(source, place, target.endswith("/"), flags.get("chmod"))

    def _copy_context(self, source: str, place: Path, into: bool, mode: str | None) -> None:
        path = self.context / source
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        kept = [file for file in files if not self.ignored(str(file.relative_to(self.context)))]
        if not kept:
            raise Failed(f"COPY {source}: there is no such file, or .dockerignore leaves it out")
        for file in kept:
            inside = file.name if file == path and into else str(file.relative_to(path))
            (place / inside).parent.mkdir(parents=True, exist_ok=True)
            copied = Path(shutil.copy(file, place / inside))
            copied.chmod(int(mode, 8) if mode else copied.stat().st_mode)

    def do_env(self, value: str) -> None:
        for word in shlex.split(value):
            name, _, text = word.partition("=")
            self.environment[name] = Template(text).substitute(self.environment)

    def do_workdir(self, value: str) -> None:
        self.workdir = os.path.join(self.workdir, value)
        (self.root / self.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_user(self, value: str) -> None:
        self.user = value

    def do_cmd(self, value: str) -> None:
        self.command = json.loads(value)  # the exec form, or it fails

    def do_healthcheck(self, value: str) -> None:
        self.health = json.loads(value.partition("CMD ")[2])

    def do_stopsignal(self, value: str) -> None:
        self.stop_signal = value

    def do_label(self, value: str) -> None: ...
    def do_expose(self, value: str) -> None: ...

    def enter(self, command: Sequence[str], more: Mapping[str, str] = NOTHING) -> list[str | Path]:
        """What runs a command in the root, as its user, with nothing of this process's environment."""
        uid, gid = self.user.split(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        drop += NO_RIGHTS if uid != "0" else []
        given = [f"{name}={value}" for name, value in (self.environment | dict(more)).items()]
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        return ["chroot", self.root, *drop, "env", "-i", *given, *inside]


class Ignored:
    """Whether a .dockerignore leaves a path out: the last line counts that fits it or a folder above it."""

    def __init__(self, text: str) -> None:
        lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
        self._rules = [(line.startswith("!"), self._pattern(line.lstrip("!"))) for line in lines]

    def __call__(self, path: str) -> bool:
        decisions = [not kept for kept, pattern in self._rules if pattern.match(path)]
        return decisions[-1] if decisions else False

    @staticmethod
    def _pattern(line: str) -> re.Pattern[str]:
        parts = re.split(r"(\*\*/|\*)", line.strip("/"))
        regex = {"**/": "(?:.*/)?", "*": "[^/]*"}
        return re.compile("".join(regex.get(part, re.escape(part)) for part in parts) + "(?:/|$)")


def build(dockerfile: Path, context: Path, base: Path, work: Path) -> Stage:
    """Does the steps in order, a root for each stage. Returns the last."""
    ignore = dockerfile.with_name(dockerfile.name + ".dockerignore")
    ignored = Ignored(ignore.read_text() if ignore.exists() else "")
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
    steps = [step for step in parser.structure if step["instruction"] != "COMMENT"]
    stages: dict[str, Stage] = {}
    for number, step in enumerate(steps, 1):
        instruction, value = step["instruction"], step["value"]
        click.echo(f"[{number}/{len(steps)}] {instruction} {' '.join(value.split())}")
        try:
            if instruction == "FROM":
                image, _, name = value.partition(" AS ")
                root = work / f"stage{len(stages)}"
                begin(image, base, root)
                stages[name or str(len(stages))] = Stage(root, context, ignored, stages)
            else:
                list(stages.values())[-1].step(instruction, value)
        except Failed as error:
            raise Failed(
                f"Line {step['startline'] + 1} of {dockerfile.name}, {instruction}: {error}"
            ) from None
    return list(stages.values())[-1]


def begin(image: str, base: Path, root: Path) -> None:
    found = re.fullmatch(r"debian:(\w+)-slim", image)
    if not found:
        raise Failed(f"{image} is not a debian:RELEASE-slim")
    if not base.exists():
        bootstrap(base, found[1])
    do("cp", "-a", base, root)


# ---------------------------------------------------------------- the services, from the root that was built


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """${NAME}, ${NAME:-default} and ${NAME:?sentence}, as compose does it."""

    def put(found: re.Match[str]) -> str:
        value = variables.get(found["name"]) or (found["rest"] if found["kind"] == "-" else None)
        if value is None:
            raise Failed(f"{found['name']} is not set")
        return value

    return re.sub(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}", put, text)


class Services:
    """Runs services of a compose file from one root, which is read-only but for what the file says."""

    def __init__(self, image: Stage, text: str) -> None:
        self.image = image
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start_redis(self, directory: Path) -> None:
        """The service's command, with this machine's server."""
        directory.mkdir()
        command = shlex.split(self.services["redis"]["command"])[1:]
        place = ["--bind", "127.0.0.1", "--port", "6379", "--dir", str(directory)]
        with (directory / "log").open("w") as log:
            self.running["redis"] = subprocess.Popen([find_program(), *command, *place], stdout=log)
        wait_until(lambda: answers(6379), "Redis answers")

    def start(self, name: str) -> None:
        """Starts a service, and waits until its health check is content."""
        service = self.services[name]
        command = service.get("command", self.image.command)
        self.running[name] = subprocess.Popen(self.image.enter(command, service["environment"]))
        wait_until(lambda: self.is_healthy(name), f"{name} is healthy")
        say(f"{name}: {' '.join(command)} is healthy")

    def is_healthy(self, name: str) -> bool:
        if self.running[name].poll() is not None:
            raise Failed(f"{name} ended with {self.running[name].returncode}")
        return self.check(name) == 0

    def check(self, name: str) -> int:
        """The exit code of the service's health check, which is that of the image unless it has its own."""
        service = self.services[name]
        command = service["healthcheck"]["test"][1:] if "healthcheck" in service else self.image.health
        checking = subprocess.run(self.image.enter(command, service["environment"]), capture_output=True)
        return checking.returncode

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker compose run --rm NAME COMMAND…`."""
        entered = self.image.enter(command, self.services[name]["environment"])
        return subprocess.run(entered, capture_output=True, text=True)

    def stop(self, name: str) -> None:
        """As `docker compose stop NAME`; it has to end in time, and well."""
        process = self.running.pop(name)
        process.send_signal(signal.Signals[self.image.stop_signal])
        grace = float(self.services[name]["stop_grace_period"].removesuffix("s"))
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        expect(process.returncode == 0, f"{name}: {self.image.stop_signal} ends it with 0")


def try_out(image: Stage, compose: Path, work: Path) -> None:
    """From the first key to the last signal."""
    use_own_network()
    (image.root / "etc/hosts").write_text("127.0.0.1 localhost redis gateway\n")
    services = Services(image, interpolate(compose.read_text(), {"REDIS_PASSWORD": secrets.token_hex(16)}))
    with read_only(image.root):
        services.start_redis(work / "redis")
        services.start("gateway")
        expect(call("GET", "/tasks", "")[0] == 401, "gateway: without a key the answer is 401")
        created = services.run("worker", "dtq", "key", "create", "--name", "me", "--scope", "admin")
        expect(created.returncode == 0, "worker: dtq key create prints a key")
        services.start("worker")
        status, task = call("POST", "/tasks", created.stdout.strip(), {"type": "process", "data": "x"})
        expect(status == 201, "gateway: with the key a task is taken")
        address = f"/tasks/{task.get('task_id')}"
        wait_until(
            lambda: call("GET", address, created.stdout.strip())[1]["status"] == "completed", "it is done"
        )
        say("worker: the task is completed")
        for place in ("/app", "/opt/dtq"):
            written = services.run("worker", "touch", f"{place}/file").returncode
            expect(written == 1, f"worker: {place} cannot be written to")
        services.stop("worker")
        services.stop("gateway")
        expect(services.check("gateway") != 0, "gateway: once it has ended, its health check says so")
        expect(services.check("worker") != 0, "worker: once it has ended, its health check says so")
        services.stop("redis")


def use_own_network() -> None:
    """With nothing but a loopback address, on which all ports are free."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise Failed(f"no network of its own: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """The root as a container with `read_only` and a `tmpfs` for /tmp sees it."""
    tmpfs = ("-t", "tmpfs", "tmpfs")
    with mounted("--bind", root, root):
        (root / "dev/shm").mkdir(exist_ok=True)
        with (
            mounted("-t", "proc", "proc", root / "proc"),
            mounted(*tmpfs, root / "tmp"),
            mounted(*tmpfs, root / "dev/shm"),
        ):
            do("mount", "-o", "remount,bind,ro", root)
            yield


def call(method: str, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:5000{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------- small things


def do(*command: str | Path) -> None:
    """Runs a command; what it says is of interest if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode != 0:
        click.echo("\n".join(done.stdout.splitlines()[-30:]))
        raise Failed(f"exit code {done.returncode}")


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    do("mount", *arguments)
    try:
        yield
    finally:
        do("umount", "--recursive", "--lazy", arguments[-1])


def megabytes(folder: Path) -> float:
    counted = subprocess.run(["du", "-sk", folder], stdout=subprocess.PIPE, text=True, check=True)
    return int(counted.stdout.split()[0]) / 1024


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        expect(time.monotonic() < end, f"within {PATIENCE:g} s: {what}", quiet=True)
        time.sleep(0.2)


def expect(is_so: bool, what: str, quiet: bool = False) -> None:
    if not is_so:
        raise Failed(f"NOT SHOWN: {what}")
    if not quiet:
        say(what)


def say(what: str) -> None:
    click.echo(f"shown: {what}")


# ---------------------------------------------------------------- the command

PROJECT = Path(__file__).resolve().parent.parent


@click.command(help=__doc__)
@click.option("--file", default=PROJECT / "deploy/Dockerfile", type=click.Path(path_type=Path, exists=True))
@click.option("--context", default=PROJECT, type=click.Path(path_type=Path, exists=True))
@click.option("--base", type=click.Path(path_type=Path), help="a bare root to copy; made where it is missing")
@click.option("--build-only", is_flag=True, help="do not run the services")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True)
def main(file: Path, context: Path, base: Path | None, build_only: bool, inside: Path | None) -> None:
    if inside is None:
        sys.exit(apart())
    try:
        base = base or inside / "base"
        image = build(file, context, base, inside)
        click.echo(f"built: {megabytes(image.root) - megabytes(base):.0f} MB more than its base")
        if not build_only:
            try_out(image, context / "compose.yaml", inside)
    except Failed as error:
        click.echo(f"scripts/bare_root.py: {error}", err=True)
        sys.exit(1)


def apart() -> int:
    """Runs this script among mounts and processes of its own: the system ends all of them with it."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        click.echo(
            "scripts/bare_root.py: needs root, and debootstrap (apt-get install debootstrap)", err=True
        )
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = Path(tempfile.mkdtemp(prefix="bare_root."))
    die_with_this = ["setpriv", "--pdeathsig", "KILL"]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [sys.executable, "-B", __file__, *sys.argv[1:], "--inside", str(work)]
    process = subprocess.Popen([*die_with_this, *namespaces, *command])
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: removed(work), f"{work} is removed")


def removed(folder: Path) -> bool:
    """Whether it has gone; processes that are just being killed may still write into it."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


if __name__ == "__main__":
    main()
