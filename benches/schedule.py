"""Scheduled operations: how late they begin and end, whether each runs once, and what an engine costs at rest."""

import contextlib
import datetime
import sqlite3
import time

import common

SET_UP_LIMIT = 40.0  # seconds, each case; what is made by then is what is measured
RUN_LIMIT = 25.0  # seconds after the last due time
PER_TRIGGER = 10
DAY = 24 * 3600
PATTERN = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT\nEND:VCALENDAR"


def utc(second):
    """A whole second since the epoch, as triggers and the database write it."""
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def trigger(name, due):
    """A trigger that fires at `due`, and at that time every day."""
    properties = {"format": "calendar", "pattern": PATTERN, "start_time": utc(due)}
    return {"trigger_info": {"name": name, "type": "time", "properties": properties}}


def move(service, triggers, due):
    """Lets each trigger fire at its time of `due`."""
    for identity, second in zip(triggers, due):
        service.request("PUT", f"/triggers/{identity}", trigger("soon", second))
    if time.time() >= due[0]:
        raise RuntimeError("the triggers were not changed before the first was due")


class Case:
    """A service whose operations are due tomorrow, until its triggers are moved."""

    def __init__(self, service, count, per_trigger):
        self.service, self.operations, self.triggers = service, 0, []
        provider = service.provider("simulated")
        plan = service.make_plan("scheduled", provider, common.volumes(1))["id"]
        # It looks for checkpoints that need not be kept, and finds none.
        definition = {"plan_id": plan, "provider_id": provider, "max_backups": "1"}
        deadline, tomorrow = time.monotonic() + SET_UP_LIMIT, int(time.time()) + DAY
        while self.operations < count and time.monotonic() < deadline:
            if self.operations == len(self.triggers) * per_trigger:
                made = service.request("POST", "/triggers", trigger("tomorrow", tomorrow))
                self.triggers.append(made["trigger_info"]["id"])
            service.request("POST", "/scheduled_operations", {"scheduled_operation": {
                "name": f"operation {self.operations}", "operation_type": "delete",
                "trigger_id": self.triggers[-1], "operation_definition": definition,
            }})
            self.operations += 1
        if self.operations < count:
            common.say(f"schedule: only {self.operations} of {count} operations were made in {SET_UP_LIMIT:.0f} s")

    def fire(self, name, span):
        """Spreads the triggers over `span` seconds from soon on; the row that tells what came of it."""
        began = time.monotonic()
        # Changed as they are now: how long that takes tells when the first may be due.
        move(self.service, self.triggers, [int(time.time()) + DAY] * len(self.triggers))
        first = int(time.time() + 3 + 3 * (time.monotonic() - began))
        due = [first + at * span // len(self.triggers) for at in range(len(self.triggers))]
        move(self.service, self.triggers, due)
        common.say(f"schedule: {name}: {self.operations} operations from {utc(first)} UTC on")
        time.sleep(max(0, first - 1 - time.time()))
        before = self.service.cpu_ms()
        ended = self.wait(utc(due[0]), utc(due[-1]), due[-1] + RUN_LIMIT)
        cpu = self.service.cpu_ms() - before
        runs = {}
        for operation, state, *_ in ended:
            runs.setdefault(operation, []).append(state)
        once = sum(states == ["success"] for states in runs.values())
        if not ended:
            raise RuntimeError(f"no operation ran:\n{common.tail(self.service.log.name)}")
        return [name, self.operations, len(self.triggers), *milliseconds(row[2] for row in ended),
                *milliseconds(row[3] for row in ended), f"{once} of {self.operations}",
                f"{cpu / len(ended):.1f}"]

    def wait(self, first, last, limit):
        """Operation, state, seconds late at its beginning and end, of each run that was due between."""
        where = "FROM scheduled_operation_logs AS logs WHERE expect_start_time BETWEEN ? AND ?"
        bounds = (f"{first}.000000", f"{last}.000000")
        path = f"file:{self.service.state}/karbor.db?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True, timeout=10)) as database:
            while time.time() < limit:
                (count,) = database.execute(f"SELECT COUNT(*) {where}", bounds).fetchone()
                if count >= self.operations:
                    # A second run of any would follow closely.
                    time.sleep(1)
                    break
                time.sleep(0.5)
            # The claim stands in the run itself.
            claimed = ("(SELECT started_at FROM scheduled_runs AS runs"
                       " WHERE runs.operation_id = logs.operation_id AND runs.due_at = logs.expect_start_time)")
            late = "(julianday({}) - julianday(expect_start_time)) * 86400"
            begun, ended = late.format(claimed), late.format("end_time")
            return database.execute(f"SELECT operation_id, state, {begun}, {ended} {where}", bounds).fetchall()


def milliseconds(seconds):
    """p50, p99 and the most."""
    ordered = sorted(seconds)
    picked = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
    return [f"{value * 1000:.0f}" for value in picked]


def at_rest(services, seconds):
    """CPU in ms a minute and RSS in MB of each service while nothing is due or asked."""
    for service in services:
        # The service drops one that is idle for so long; the next request makes another.
        service.connection.close()
    time.sleep(3)
    before = [service.cpu_ms() for service in services]
    time.sleep(seconds)
    return [[f"{(service.cpu_ms() - cpu) * 60 / seconds:.0f}", f"{service.memory_mb('VmRSS'):.0f}"]
            for service, cpu in zip(services, before)]


def run(options, place):
    count, span, rest = (200, 10, 10) if options.quick else (10_000, 60, 30)
    common.say(f"schedule: {count} operations on triggers of {PER_TRIGGER}")
    with common.Service(options, common.with_simulated(place / "schedule-spread")) as service:
        spread = Case(service, count, PER_TRIGGER)
        with common.Service(options, common.with_simulated(place / "schedule-empty")) as empty:
            common.say("schedule: at rest")
            resting = at_rest([empty, service], rest)
        rows = [spread.fire(f"spread over {span} s", span)]
    common.say(f"schedule: {count} operations on one trigger")
    with common.Service(options, common.with_simulated(place / "schedule-one")) as service:
        one = Case(service, count, count)
        rows.append(one.fire("all at one second", 1))
    common.table(
        "Scheduled operations: ms from the due time until a run",
        ["due", "operations", "triggers", "begins p50", "p99", "most", "has ended p50", "p99", "most",
         "ran exactly once", "server CPU ms/run"],
        rows,
        "Operations `delete` with nothing to delete, of one plan; each is due once. Due times are whole seconds. "
        "A run begins when the engine claims it (started_at in scheduled_runs) and has ended by end_time in "
        "scheduled_operation_logs, where each run has one row.",
    )
    common.table(
        f"Operation engine at rest, over {rest} s",
        ["scheduled operations", "triggers", "CPU ms/minute", "RSS MB"],
        [["0", "0", *resting[0]], [spread.operations, len(spread.triggers), *resting[1]]],
        "The whole service, nothing due for a day and nobody asking; heartbeats and periodic tasks included.",
    )
