"""Runs the timelines, versions and targets on stdin through the real oslo.service and oslo.messaging."""

import json
import logging
import sys
import types
from fractions import Fraction

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import _utils
from oslo_messaging.rpc import dispatcher
from oslo_service import periodic_task

logging.disable(logging.CRITICAL)
cfg.CONF([], default_config_files=[], default_config_dirs=[])
nearest_boundary = periodic_task._nearest_boundary
# As a whole number, so that times stay exact.
periodic_task.DEFAULT_INTERVAL = int(periodic_task.DEFAULT_INTERVAL)


class Clock:
    def __init__(self):
        self.time = Fraction(1000)

    def __call__(self):
        return self.time

    def pass_by(self, milliseconds):
        self.time += Fraction(milliseconds, 1000)


def nanoseconds(time):
    exact = Fraction(time) * 10**9
    assert exact.denominator == 1, exact
    return int(exact)


def timeline(told, shifts, idles_after):
    """What ran when, and how long each look says to idle.

    shifts: with the first of our two differences, a boundary that is never older than 5 %.
    idles_after: with the second, an idle time that is worked out after the runs.
    """
    clock = Clock()
    draws = iter(told["random"])
    periodic_task.now = clock
    periodic_task.random = types.SimpleNamespace(random=lambda: next(draws))

    def boundary(last, spacing):
        found = nearest_boundary(last, spacing)
        return max(found, clock() - Fraction(spacing, 20)) if shifts else found

    periodic_task._nearest_boundary = boundary
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    service = type("Service", (periodic_task.PeriodicTasks,), {})(conf)
    conf.set_override("run_external_periodic_tasks", told["run_external"])
    ran = []

    def add(number):
        spec = told["tasks"][number]
        adds = [spec["adds"]] if spec["adds"] is not None else []

        def run(self, context):
            ran.append([number, nanoseconds(clock() - 1000)])
            clock.pass_by(spec["takes"])
            while adds:
                add(adds.pop())
            if spec["fails"]:
                raise RuntimeError("told to")

        return service.add_periodic_task(periodic_task.periodic_task(
            name=f"task {number}", spacing=spec["spacing"],
            run_immediately=spec["immediately"], enabled=spec["enabled"],
            external_process_ok=spec["external"])(run))

    def idle_now():
        idle = Fraction(60)
        for name, task in service._periodic_tasks:
            if task._periodic_external_ok and not told["run_external"]:
                continue
            spacing, last = service._periodic_spacing[name], service._periodic_last_run[name]
            due = Fraction(0) if last is None else max(last + Fraction(spacing) - clock(), 0)
            idle = min(idle, due, Fraction(spacing))
        return idle

    looks = []
    for look in told["looks"]:
        for number in look["add"]:
            add(number)
        clock.pass_by(look["after"])
        ran.clear()
        try:
            idle = service.run_periodic_tasks(None, raise_on_error=look["raise"])
            # Where nothing ran the two rules are one, and what oslo says is what counts.
            if idles_after and ran:
                idle = idle_now()
            idle = nanoseconds(idle)
        except RuntimeError:
            idle = None
        looks.append({"ran": list(ran), "idle": idle})
    return looks


def dispatched(told):
    def endpoint(number, spec):
        answer = lambda self, context: number
        members = {name: answer for name in spec["methods"]}
        if spec["version"] is not None or spec["namespace"] is not None:
            members["target"] = oslo_messaging.Target(
                namespace=spec["namespace"], version=spec["version"])
        return type("Endpoint", (), members)()

    endpoints = [endpoint(number, spec) for number, spec in enumerate(told["endpoints"])]
    incoming = types.SimpleNamespace(message=told["message"], ctxt={}, client_timeout=None)
    try:
        return {"answered": dispatcher.RPCDispatcher(endpoints, None).dispatch(incoming)}
    except dispatcher.RPCDispatcherError as error:
        return {"class": type(error).__name__, "message": str(error)}


def is_version(text):
    # Compared with itself, every part that oslo knows is looked at.
    try:
        return _utils.version_is_compatible(text, text)
    except (ValueError, IndexError):
        return False


def refused(told):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url="fake://")
    target = oslo_messaging.Target(**told["target"])
    try:
        if told["kind"] == "serve":
            oslo_messaging.get_rpc_server(transport, target, []).start()
        else:
            # A client must be made with a topic; what it sends to may have none.
            client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="t"))
            client.target = target
            if told["kind"] == "call":
                client.prepare().call({}, "m")
            else:
                client.prepare().cast({}, "m")
    except oslo_messaging.InvalidTarget as error:
        return str(error)
    return None


asked = json.load(sys.stdin)
print(json.dumps({
    "ours": [timeline(told, True, True) for told in asked["timelines"]],
    "without_shift": [timeline(told, False, True) for told in asked["timelines"]],
    "without_idle": [timeline(told, True, False) for told in asked["timelines"]],
    "dispatched": [dispatched(told) for told in asked["dispatches"]],
    "versions": [is_version(text) for text in asked["versions"]],
    "targets": [str(oslo_messaging.Target(**told)) for told in asked["targets"]],
    "refused": [refused(told) for told in asked["refused"]],
}))
