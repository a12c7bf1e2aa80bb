"""Start-up: exec to the first answer, and what the service holds at rest."""

import time

import common


def run(options, place):
    count = 3 if options.quick else 10
    common.say("start: exec to first answer")
    first, later, rest, cpu = [], [], [], []
    for number in range(count):
        state = place / f"start-{number}"
        with common.Service(options, state) as service:
            first.append(service.start_seconds * 1000)
        with common.Service(options, state) as service:
            later.append(service.start_seconds * 1000)
            time.sleep(0.5)
            rest.append(service.memory_mb("VmRSS"))
            cpu.append(service.cpu_ms())

    def row(name, values, unit, original, goal):
        return [name, f"{common.median(values):.0f} {unit}", f"{min(values):.0f}–{max(values):.0f}", original, goal]

    common.table(
        f"Start-up (median of {count})",
        ["", "karbor", "range", "original", "goal"],
        [
            row("exec to first answer, empty state directory", first, "ms", "", ""),
            row("exec to first answer, later starts", later, "ms", "2500 ms", "200 ms"),
            row("CPU of a later start", cpu, "ms", "", ""),
            row("RSS at rest", rest, "MB", "314 MB", "40 MB"),
        ],
    )
