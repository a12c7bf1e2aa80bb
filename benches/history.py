"""Protect at 10, 1,000 and 5,000 checkpoints: what a history costs those that come after it."""

import concurrent.futures
import http.client
import json
import threading
import time

import common

LIMIT = 120.0  # seconds, one protect
HANDS = 4  # how many protects are asked for at once while the history is made
FILES = 20


class Source:
    """A directory of a few files, of which one changes before every protect."""

    def __init__(self, root):
        self.root, self.turn, self.lock = root, 0, threading.Lock()
        root.mkdir(parents=True)
        for number in range(FILES):
            (root / f"file{number}").write_text(f"file {number}\n" * 200)

    def change(self):
        with self.lock:
            self.turn += 1
            (self.root / f"file{self.turn % FILES}").write_text(f"changed for the {self.turn}th time\n" * 200)


class Plan:
    """The plan of one application, and protects of it."""

    def __init__(self, service, source):
        self.service, self.source = service, source
        self.provider = service.provider("local")
        self.path = f"/providers/{self.provider}/checkpoints"
        plans = service.request("GET", "/plans")["plans"]
        if plans:
            self.plan = plans[0]["id"]
            return
        found = service.request("GET", "/protectables/Host::Application/instances")["instances"]
        resources = [{key: found[0][key] for key in ("id", "type", "name")}]
        self.plan = service.make_plan("history", self.provider, resources)["id"]

    def protect(self, ask=None):
        """Milliseconds until the checkpoint is available."""
        ask = ask or self.service.request
        self.source.change()
        began = time.perf_counter()
        made = ask("POST", self.path, {"checkpoint": {"plan_id": self.plan}})["checkpoint"]["id"]
        while True:
            status = ask("GET", f"{self.path}/{made}")["checkpoint"]["status"]
            elapsed = time.perf_counter() - began
            if status == "available":
                return elapsed * 1000
            if status != "protecting" or elapsed > LIMIT:
                raise RuntimeError(f"checkpoint {made} is {status} after {elapsed:.1f} s")
            time.sleep(max(0.002, elapsed / 50))

    def grow(self, count):
        """So many more checkpoints, each by a protect as every other."""
        left = iter(range(count))

        def work():
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=LIMIT)
            headers = {"X-Auth-Token": self.service.token, "Content-Type": "application/json"}

            def ask(method, path, body=None):
                connection.request(method, self.service.base + path, body and json.dumps(body), headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status >= 300:
                    raise RuntimeError(f"{method} {path} answered {answer.status}: {content[:400]!r}")
                return json.loads(content)

            while True:
                with self.source.lock:
                    if next(left, None) is None:
                        return
                self.protect(ask)

        with concurrent.futures.ThreadPoolExecutor(HANDS) as hands:
            for done in [hands.submit(work) for _ in range(HANDS)]:
                done.result()


def measured(options, binary, state, source, times):
    """Milliseconds of the first protect after a start; then of each, wall and CPU of the service; RSS in MB."""
    options.karbor, kept = binary, options.karbor
    try:
        with common.Service(options, state) as service:
            plan = Plan(service, source)
            first = plan.protect()
            before = service.cpu_ms()
            walls = [plan.protect() for _ in range(times)]
            cpu = (service.cpu_ms() - before) / times
            return first, walls, cpu, service.memory_mb("VmRSS")
    finally:
        options.karbor = kept


def run(options, place):
    sizes, times, rounds = ((10, 100), 5, 1) if options.quick else ((10, 1000, 5000), 10, 3)
    binaries = {"now": options.karbor}
    if options.before:
        binaries = {"before": options.before, **binaries}
    place = place / "history"
    state, source = place / "state", Source(place / "source")
    applications = state / "applications.d"
    applications.mkdir(parents=True, mode=0o700)
    (applications / "app.toml").write_text(
        f'name = "app"\nprojects = ["default"]\n[[directory]]\nname = "files"\npath = "{source.root}"\n')
    rows, there, least = [], 0, {}
    for size in sizes:
        common.say(f"history: on to {size} checkpoints")
        with common.Service(options, state) as service:
            Plan(service, source).grow(size - there)
        seen = {name: ([], [], [], []) for name in binaries}
        there = size
        for _ in range(rounds):
            for name, binary in binaries.items():
                firsts, walls, cpus, memories = seen[name]
                first, more, cpu, memory = measured(options, binary, state, source, times)
                firsts.append(first)
                walls.extend(more)
                cpus.append(cpu)
                memories.append(memory)
                there += 1 + times
        for name, (firsts, walls, cpus, memories) in seen.items():
            wall = common.median(walls)
            least.setdefault(name, wall)
            rows.append([f"{size:,}", name, f"{wall:.0f}", f"{min(walls):.0f}–{max(walls):.0f}",
                         f"{wall / least[name]:.2f}", f"{common.median(cpus):.0f}",
                         f"{common.median(firsts):.0f}", f"{common.median(memories):.0f}"])
    common.table(
        f"Protect after so many checkpoints of the plan (median of {rounds * times})",
        ["checkpoints", "", "wall ms", "range", "to the least", "server CPU ms", "first after a start ms", "RSS MB"],
        rows,
        f"A directory of {FILES} small files, one of which changes before each; the history is made by the same protects, "
        "through REST. Each binary in turn, started anew, on the same bank and database.",
    )
