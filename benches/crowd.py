"""A crowd at the door: silent connections beside one who asks, and a flood of verifications beside one who restores."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import time

import common

LIMIT = 300.0  # seconds, each case


def run(options, place):
    silent, verifications, files = (200, 20, 200) if options.quick else (1100, 300, 4000)
    with common.Service(options, place / "silent") as service:
        rows = [["none", "", *asked(service)]]
        for source, name in (("127.0.0.1", "its own"), ("127.0.0.2", "another")):
            with crowd(service.port, silent, source):
                rows.append([f"{silent:,}", name, *asked(service)])
    common.table(
        "Silent connections", ["silent connections", "from whose address", "answer s", "most of 5 s"], rows,
        "A new connection each; the silent ones came before and send nothing.",
    )
    flood(options, place, verifications, files)


def asked(service):
    """How long one who asks waits: half of the time, and at most."""
    waited = [answered(service) for _ in range(5)]
    return f"{common.median(waited):.2f}", f"{max(waited):.2f}"


def answered(service):
    began = time.perf_counter()
    ask(service, "GET", "/plans")
    return time.perf_counter() - began


def ask(service, method, path, body=None):
    """A request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LIMIT)
    headers = {"X-Auth-Token": service.token, "Content-Type": "application/json"}
    connection.request(method, service.base + path, body and json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path} answered {answer.status}: {content[:400]!r}")
    return json.loads(content)


@contextlib.contextmanager
def crowd(port, count, source):
    """So many connections that say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind((source, 0))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
        time.sleep(1)
        yield


def flood(options, place, count, files):
    """Verifications that read the data, all asked for at once, and a restore asked for after them."""
    source, state = place / "flood-files", place / "flood"
    source.mkdir()
    for number in range(files):
        (source / f"{number}").write_bytes(os.urandom(4096))
    applications = state / "applications.d"
    applications.mkdir(parents=True, mode=0o700)
    (applications / "flood.toml").write_text(
        f'name = "flood"\nprojects = ["default"]\nrestore_roots = ["{place}"]\n'
        f'[[directory]]\nname = "files"\npath = "{source}"\n')
    state.chmod(0o700)
    with common.Service(options, state) as service:
        provider = service.provider("local")
        found = service.request("GET", "/protectables/Host::Application/instances")["instances"]
        resource = {key: found[0][key] for key in ("id", "type", "name")}
        plan = service.make_plan("flood", provider, [resource])["id"]
        at = f"/providers/{provider}/checkpoints"
        made = service.request("POST", at, {"checkpoint": {"plan_id": plan}})["checkpoint"]["id"]
        until(lambda: service.request("GET", f"{at}/{made}")["checkpoint"]["status"] == "available")
        about = {"provider_id": provider, "checkpoint_id": made}
        rest = service.memory_mb("VmRSS")
        service.forget_peak()
        began = time.perf_counter()
        wish = {"verification": {**about, "parameters": {"Host::Directory": {"level": "data"}}}}
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda _: ask(service, "POST", "/verifications", wish), range(count)))
        accepted = time.perf_counter() - began
        target = {"Host::Directory": {"restore_to": str(place / "restored"), "overwrite": "always"}}
        restore = ask(service, "POST", "/restores", {"restore": {**about, "parameters": target}})["restore"]["id"]
        until(lambda: ask(service, "GET", f"/restores/{restore}")["restore"]["status"] != "in_progress")
        restored = time.perf_counter() - began - accepted
        until(lambda: not ask(service, "GET", "/verifications?status=in_progress")["verifications"])
        took = time.perf_counter() - began
        failed = ask(service, "GET", "/verifications?status=fail")["verifications"]
        if failed:
            raise RuntimeError(f"{len(failed)} verifications failed:\n{common.tail(service.log.name)}")
        rows = [[count, f"{rest:.0f}", f"{service.memory_mb('VmHWM'):.0f}", f"{accepted:.1f}", f"{restored:.1f}",
                 f"{took:.1f}"]]
    common.table(
        "A flood of verifications",
        ["verifications at once", "RSS before MB", "RSS at most MB", "accepted in s", "a restore after them s", "all done s"],
        rows, f"Of a checkpoint of {files} files of 4 KiB, with their data.",
    )


def until(ready):
    deadline = time.monotonic() + LIMIT
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {LIMIT:.0f} s")
        time.sleep(0.1)
