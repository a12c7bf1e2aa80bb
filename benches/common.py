"""What the benches share: a private place, a private service, and how things are measured."""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None)


def say(text):
    """Progress, beside the tables on stdout."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def workplace(parent):
    """One directory for everything, which does not outlive us."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="karbor-bench-", dir=parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def die_with_parent():
    """In a child: the kernel kills it when we die, even by SIGKILL."""
    LIBC.prctl(1, signal.SIGKILL)


def clean_environment(home):
    """Ours without what would configure karbor, restic or borg."""
    foreign = ("KARBOR_", "OS_", "RESTIC_", "BORG_", "RUST_LOG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": f"{home}/.cache", "LC_ALL": "C.UTF-8"}


def tool_version(*command):
    """First line that a tool says about itself, or None when it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else None


def describe_machine(options):
    def read(path, key):
        for line in pathlib.Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
        return "unknown"

    memory = int(read("/proc/meminfo", "MemTotal").split()[0]) / 1024 / 1024
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print("## Machine\n")
    print(f"* {os.cpu_count()} cores ({read('/proc/cpuinfo', 'model name')}), {memory:.0f} GB")
    print(f"* Linux {platform.release()}; load before the run {load}")
    print(f"* {tool_version(str(options.karbor), '--version')}, {time.strftime('%Y-%m-%d', time.gmtime())}")
    if options.quick:
        print("* **quick run: these figures only show that the benches work**")
    print(flush=True)


def table(title, head, rows, note=""):
    """A Markdown table, columns aligned for people who read it as text."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(cells):
        first, *rest = [cell.ljust(width) if at == 0 else cell.rjust(width)
                        for at, (cell, width) in enumerate(zip(cells, widths))]
        return "| " + " | ".join([first, *rest]) + " |"

    print(f"### {title}\n")
    print(line(head))
    print("|" + "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":"
                         for at, width in enumerate(widths)) + "|")
    for row in rows:
        print(line(row))
    print(f"\n{note}\n" if note else "", flush=True)


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail(log):
    """The last lines of a log."""
    return pathlib.Path(log).read_text(errors="replace")[-2000:]


class Process:
    """A process as /proc sees it."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_ms(self):
        """User and system time so far, its ended children's too."""
        stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(field) for field in stat[11:15]) * 1000 / TICK

    def memory_mb(self, key):
        """VmRSS (now) or VmHWM (the most)."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {key} of process {self.pid}")

    def forget_peak(self):
        """Lets VmHWM begin anew from what is used now."""
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def with_simulated(state):
    """The state directory with one provider, `simulated`, whose plugin takes resources that exist nowhere."""
    providers = state / "providers.d"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    providers.mkdir(mode=0o700)
    (providers / "simulated.conf").write_text(
        "[provider]\nname = simulated\nid = e4008868-be97-492c-be41-44e50ef2e16f\nenabled = True\n"
        "plugin = karbor-simulated-protection-plugin\nbank = karbor-fs-bank-plugin\n"
        f"[file_system_bank_plugin]\nfile_system_bank_path = {state / 'bank'}\n")
    return state


class Service(Process):
    """`karbor serve` on a state directory and a port of its own."""

    def __init__(self, options, state, port=None):
        self.binary, self.state, self.port = options.karbor, state, port or free_port()
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.environment = {**clean_environment(state.parent), "KARBOR_STATE_DIR": str(state)}
        self.log = open(state.parent / f"{state.name}.log", "ab")
        self.started = time.perf_counter()
        self.child = subprocess.Popen(
            [self.binary, "serve", "--listen", f"127.0.0.1:{self.port}"],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            preexec_fn=die_with_parent,
        )
        super().__init__(self.child.pid)

    def __enter__(self):
        try:
            self.start_seconds = self.wait_until_ready()
            endpoint = self.state / "endpoint"
            deadline = time.monotonic() + 30
            while not endpoint.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.base = "/v1/" + endpoint.read_text().strip().rsplit("/", 1)[1]
            token = self.state / "token"
            # Only the local tokens are made by the service itself.
            self.token = token.read_text().strip() if token.exists() else None
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.child.terminate()
        try:
            self.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.log.close()

    def wait_until_ready(self):
        """Seconds from exec to the first answer to GET /."""
        deadline = self.started + 60
        while time.perf_counter() < deadline:
            if self.child.poll() is not None:
                said = tail(self.log.name)
                raise RuntimeError(f"the service ended with {self.child.returncode}:\n{said}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as stream:
                    stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = stream.recv(64)
                if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 300")):
                    return time.perf_counter() - self.started
                raise RuntimeError(f"GET / answered {answer!r}")
            except OSError:
                time.sleep(0.0005)
        raise RuntimeError("the service did not answer within 60 s")

    def request(self, method, path, body=None):
        """What the API answers, as JSON; anything but 2xx is an error."""
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        self.connection.request(method, self.base + path, text, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {content[:400]!r}")
        return json.loads(content) if content else None

    def provider(self, name):
        for provider in self.request("GET", "/providers")["providers"]:
            if provider["name"] == name:
                return provider["id"]
        raise RuntimeError(f"no provider {name}")

    def make_plan(self, name, provider, resources):
        body = {"plan": {"name": name, "description": "made by the bench", "provider_id": provider,
                         "parameters": {}, "resources": resources}}
        return self.request("POST", "/plans", body)["plan"]


def volumes(count, seed=0):
    """Resources that exist nowhere: the simulated plugin takes them (see `with_simulated`)."""
    return [{"id": f"{seed:08x}-0000-4000-8000-{number:012x}", "type": "OS::Cinder::Volume",
             "name": f"v{number}"} for number in range(count)]


class Measured:
    """Wall, CPU (user + system) and peak RSS of one command."""

    def __init__(self, command, limit, cwd=None, environment=None, place=None, accept=(0,)):
        report = (place or pathlib.Path(tempfile.gettempdir())) / "time.txt"
        # A child's peak RSS counts from the fork, so from Python's own size; `time` forks from a small one.
        timed = shutil.which("time")
        if timed:
            command = [timed, "-q", "-f", "%U %S %M", "-o", str(report), *command]
        began = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=die_with_parent, start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=limit)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        self.wall = time.perf_counter() - began
        self.output = output.decode(errors="replace")
        if child.returncode not in accept:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {child.returncode}:\n{self.output[-2000:]}")
        if timed:
            user, system, peak = report.read_text().split()[-3:]
            self.cpu, self.peak_mb = float(user) + float(system), int(peak) / 1024
        else:
            import resource
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.cpu, self.peak_mb = float("nan"), used.ru_maxrss / 1024


def median(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
