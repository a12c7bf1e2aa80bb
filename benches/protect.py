"""Protect of simulated resources: what flows, journal and bank cost by themselves."""

import time

import common

LIMIT = 120.0
ORIGINAL = {100: "8100 ms"}
GOAL = {100: "100 ms"}


def protect(service, provider, plan):
    """Milliseconds until the checkpoint is available."""
    began = time.perf_counter()
    body = {"checkpoint": {"plan_id": plan}}
    path = f"/providers/{provider}/checkpoints"
    checkpoint = service.request("POST", path, body)["checkpoint"]["id"]
    accepted = (time.perf_counter() - began) * 1000
    while True:
        status = service.request("GET", f"{path}/{checkpoint}")["checkpoint"]["status"]
        elapsed = time.perf_counter() - began
        if status == "available":
            return accepted, elapsed * 1000
        if status != "protecting" or elapsed > LIMIT:
            raise RuntimeError(f"checkpoint {checkpoint} is {status} after {elapsed:.1f} s")
        # Asking costs the service too: about a hundred times, whatever the length.
        time.sleep(max(0.002, elapsed / 50))


def run(options, place):
    times = 2 if options.quick else 5
    counts = (1, 10, 100) if options.quick else (1, 10, 100, 1000)
    rows = []
    with common.Service(options, common.with_simulated(place / "protect")) as service:
        provider = service.provider("simulated")
        for count in counts:
            common.say(f"protect: {count} resources")
            plan = service.make_plan(f"sim-{count}", provider, common.volumes(count))["id"]
            protect(service, provider, plan)
            service.forget_peak()
            before = service.cpu_ms()
            runs = [protect(service, provider, plan) for _ in range(times)]
            cpu = (service.cpu_ms() - before) / times
            walls = [wall for _, wall in runs]
            rows.append([
                count, f"{common.median(walls):.0f}", f"{min(walls):.0f}–{max(walls):.0f}",
                f"{common.median([accepted for accepted, _ in runs]):.0f}", f"{cpu:.0f}",
                f"{service.memory_mb('VmHWM'):.0f}", ORIGINAL.get(count, ""), GOAL.get(count, ""),
            ])
    common.table(
        f"Protect of simulated resources until `available` (median of {times})",
        ["resources", "wall ms", "range", "accepted ms", "server CPU ms", "peak RSS MB", "original", "goal"],
        rows,
        "Through REST, asking for the checkpoint's status until it is there; CPU includes those questions.",
    )
