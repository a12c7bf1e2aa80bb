"""What python-dateutil and croniter say: reads a list of cases, writes the same list with "times".

A case is {"format", "pattern": [lines], "start"}; a time is "YYYY-MM-DD HH:MM:SS", the first ones at or
after the start. "times" is null for what the library refuses or is too long about.

    python oracle.py < cases.json > told.json
"""

import datetime
import itertools
import json
import re
import signal
import sys

import croniter
from dateutil import rrule

FORMAT = "%Y-%m-%d %H:%M:%S"
COUNT = 20
SECOND = datetime.timedelta(seconds=1)


def calendar(lines, start):
    times = rrule.rruleset()
    for line in lines:
        name, value = line.split(":", 1)
        if name == "RRULE":
            # Start and times are in UTC without saying so; so must UNTIL be.
            value = re.sub(r"(UNTIL=\w+)Z", r"\1", value)
            times.rrule(rrule.rrulestr(value, dtstart=start))
        else:
            add = times.rdate if name == "RDATE" else times.exdate
            for moment in value.split(","):
                add(datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ"))
    return (time for time in times if time >= start)


def crontab(lines, start):
    fields = croniter.croniter(lines[0], start - SECOND)
    while True:
        yield fields.get_next(datetime.datetime)


def told(case):
    start = datetime.datetime.strptime(case["start"], FORMAT)
    kind = calendar if case["format"] == "calendar" else crontab
    signal.setitimer(signal.ITIMER_VIRTUAL, 1)
    try:
        times = itertools.islice(kind(case["pattern"], start), COUNT)
        return [time.strftime(FORMAT) for time in times]
    except croniter.CroniterBadDateError:
        return []
    except Exception:
        return None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def too_long(*_):
    raise TimeoutError


def main():
    signal.signal(signal.SIGVTALRM, too_long)
    cases = json.load(sys.stdin)
    for case in cases:
        case["times"] = told(case)
    print("[")
    print(",\n".join(json.dumps(case) for case in cases))
    print("]")


if __name__ == "__main__":
    main()
