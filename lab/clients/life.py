"""The life of two tenants, each with the real clients; see `run`. Every step asserts its outcome."""

import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

from karborclient import client
from karborclient.common.apiclient import exceptions
from keystoneauth1 import identity, session

PATIENCE = 120


def say(text):
    print(text, file=sys.stderr, flush=True)


def connect(endpoint, token):
    return client.Client("1", endpoint=endpoint, token=token)


class Local:
    """Whoever comes with a token of the service's own, and knows the endpoint."""

    # Not in the environment, where it would hide OS_AUTH_TOKEN from python-karborclient's own shell.
    openstack = ("openstack", "--os-auth-type", "admin_token")

    def __init__(self, login):
        self.endpoint, self.token = login["OS_ENDPOINT"], login["OS_TOKEN"]
        self.api = connect(self.endpoint, self.token)

    def assert_trusts(self, _):
        """There are none without keystone."""


class Keystone:
    """Whoever logs in with keystone, and finds the endpoint in its catalog."""

    openstack = ("openstack",)

    def __init__(self, login):
        names = ("auth_url", "username", "password", "project_name", "user_domain_id", "project_domain_id")
        self.session = session.Session(
            identity.Password(**{name: login[f"OS_{name.upper()}"] for name in names}))
        self.endpoint = self.session.get_endpoint(service_type="data-protect")
        self.token = self.session.get_token()
        self.api = client.Client("1", session=self.session, service_type="data-protect")

    def assert_trusts(self, count):
        """So many trusts of the user's are there, each for another who acts as the user."""
        user = self.session.get_user_id()
        trusts = self.session.get(
            f"/OS-TRUST/trusts?trustor_user_id={user}", endpoint_filter={"service_type": "identity"}
        ).json()["trusts"]
        assert len(trusts) == count, trusts
        assert all(one["impersonation"] and one["trustee_user_id"] != user for one in trusts), trusts


ACCOUNTS = {"local": Local, "keystone": Keystone}


def wait(what, ready):
    """What `ready` gives, as soon as it gives anything."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


@contextlib.contextmanager
def refused(*kinds):
    """What is inside must be answered with one of these exceptions of the client."""
    try:
        yield
    except kinds:
        return
    raise AssertionError(f"was not refused with {[kind.__name__ for kind in kinds]}")


def ended(resource):
    return resource.status not in ("in_progress", "protecting", "deleting") and resource


class Tenant:
    """One tenant; `world` is what `run` says of the service, its accounts and the life to lead."""

    def __init__(self, name, world):
        self.name, self.label, self.keep = name, f"{world['auth']}: {name}", world["keep"]
        self.login = world["logins"][name]
        enter = ACCOUNTS[world["auth"]]
        self.account, self.admin = enter(self.login), enter(world["logins"]["admin"]).api
        self.api = self.account.api
        self.project = self.account.endpoint.rsplit("/", 1)[1]
        self.file = pathlib.Path(world["data"], name, "letter.txt")

    def say(self, text):
        say(f"{self.label}: {text}")

    def run(self, *command):
        """What a program prints that logs in by its environment."""
        done = subprocess.run(command, env={**os.environ, **self.login}, capture_output=True, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def openstack(self, *arguments, table=True):
        """`openstack data protection …`: what it prints, as JSON."""
        form = ("-f", "json") if table else ()
        said = self.run(*self.account.openstack, "data", "protection", *arguments, *form)
        return json.loads(said) if table else None

    def shell(self, *arguments):
        """python-karborclient's own `karbor …`: the property table that it prints."""
        rows = [line.split("|") for line in self.run("karbor", *arguments).splitlines()
                if line.startswith("|")]
        return {row[1].strip(): row[2].strip() for row in rows if len(row) == 4}

    def live(self, other):
        self.plan_and_protect()
        self.stay_apart(other)
        self.verify()
        self.restore()
        self.schedule_and_retain()
        self.clean_up()
        self.have_quotas()
        self.say("lived")

    def plan_and_protect(self):
        self.file.write_text(f"from {self.name}, first version")
        providers = {row["Name"]: row["Id"] for row in self.openstack("provider", "list")}
        self.provider = providers["local"]
        (found,) = self.openstack("protectable", "instance", "list", "Host::Application")
        assert found["Name"] == self.name, found
        made = self.openstack(
            "plan", "create", f"{self.name}'s", self.provider,
            f"{found['Id']}=Host::Application={self.name}", "--description", "all of it")
        self.plan = made["id"]
        assert [row["Id"] for row in self.openstack("plan", "list")] == [self.plan]
        shown = self.openstack("plan", "show", self.plan)
        assert shown["name"] == f"{self.name}'s" and shown["description"] == "all of it", shown
        named = self.openstack("plan", "list", "--name", f"^{self.name}.s$")
        assert [row["Id"] for row in named] == [self.plan], named
        # The plugin decodes the graph of whatever it is shown.
        made = self.openstack("checkpoint", "create", self.provider, self.plan, "--extra_info", "why=the life")
        assert found["Id"] in made["resource_graph"], made
        self.checkpoint = made["id"]
        made = wait("protect", lambda: ended(self.api.checkpoints.get(self.provider, self.checkpoint)))
        assert made.status == "available", made
        listed = self.openstack("checkpoint", "list", self.provider, "--plan_id", self.plan)
        assert [row["Id"] for row in listed] == [self.checkpoint], listed
        shown = self.openstack("checkpoint", "show", self.provider, self.checkpoint)
        assert shown["status"] == "available", shown
        (log,) = self.api.operation_logs.list(search_opts={"checkpoint_id": self.checkpoint})
        assert (log.operation_type, log.status) == ("protect", "available"), log
        states = {"status": "['available', 'error']", "checkpoint_id": self.checkpoint}
        assert [one.id for one in self.api.operation_logs.list(search_opts=states)] == [log.id]
        assert self.openstack("operationlog", "show", log.id)["status"] == "available"
        assert log.id in [row["Id"] for row in self.openstack("operationlog", "list")]
        self.say("protected")

    def stay_apart(self, other):
        """Nothing of the other tenant's may be seen or used."""
        gone = (exceptions.NotFound, exceptions.Forbidden)
        theirs = wait("the other tenant's checkpoint", lambda: getattr(other, "checkpoint", None))
        assert self.name not in {plan.name for plan in other.api.plans.list()}
        for attempt in (
            lambda: self.api.plans.get(other.plan),
            lambda: self.api.plans.delete(other.plan),
            lambda: self.api.checkpoints.get(self.provider, theirs),
            lambda: self.api.checkpoints.delete(self.provider, theirs),
            lambda: self.api.checkpoints.create(self.provider, other.plan),
            lambda: self.api.verifications.create(self.provider, theirs, {}),
            lambda: self.api.restores.create(self.provider, theirs, None, {}, None),
        ):
            with refused(*gone):
                attempt()
        with refused(exceptions.BadRequest):
            connect(other.account.endpoint, self.account.token).plans.list()
        assert theirs not in [one.id for one in self.api.checkpoints.list(self.provider)]
        self.say("kept apart")

    def verify(self):
        made = self.openstack("verification", "create", self.provider, self.checkpoint)
        done = wait("verify", lambda: ended(self.api.verifications.get(made["id"])))
        assert done.status == "success", done
        listed = {row["Id"]: row["Status"] for row in self.openstack("verification", "list")}
        # Beside the attempt on the other tenant's, which is kept as refused.
        assert listed.pop(made["id"]) == "success" and set(listed.values()) <= {"fail"}, listed
        assert self.openstack("verification", "show", made["id"])["status"] == "success"

    def restore(self):
        self.file.write_text("spoilt")
        parameters = {"Host::Directory": {"overwrite": "always"}}
        made = self.openstack("restore", "create", self.provider, self.checkpoint,
                              "--parameters-json", json.dumps(parameters))
        done = wait("restore", lambda: ended(self.api.restores.get(made["id"])))
        assert done.status == "success", done
        assert self.file.read_text() == f"from {self.name}, first version"
        assert self.openstack("restore", "show", made["id"])["status"] == "success"
        self.say("verified and restored")

    def schedule_and_retain(self):
        """Fires every few seconds; keeps some of its own, and lets the one made by hand alone."""
        start = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
        pattern = ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=SECONDLY;INTERVAL=5\n"
                   "END:VEVENT\nEND:VCALENDAR")
        trigger = self.api.triggers.create("every few seconds", "time", {
            "format": "calendar", "pattern": pattern, "window": 2,
            "start_time": start.strftime("%Y-%m-%d %H:%M:%S")})
        shown = self.shell("trigger-show", trigger.id)
        assert shown["id"] == trigger.id, shown
        definition = f"provider_id={self.provider},plan_id={self.plan},max_backups={self.keep}"
        made = self.shell("scheduledoperation-create", "keep some", "retention_protect", trigger.id,
                          definition)
        operation = made["id"]
        assert [row["Id"] for row in self.openstack("scheduledoperation", "list")] == [operation]
        assert self.openstack("scheduledoperation", "show", operation)["trigger_id"] == trigger.id
        assert trigger.id in [row["Id"] for row in self.openstack("trigger", "list")]
        self.account.assert_trusts(1)

        def protected():
            logs = self.api.operation_logs.list(search_opts={"operation_type": "protect"})
            scheduled = [log for log in logs if log.scheduled_operation_id == operation]
            return [log.checkpoint_id for log in scheduled if log.status == "available"]

        wait("twice as many scheduled runs as are kept", lambda: len(protected()) >= 2 * self.keep)
        self.openstack("scheduledoperation", "delete", operation, table=False)
        with refused(exceptions.NotFound):
            self.api.scheduled_operations.get(operation)
        self.account.assert_trusts(0)
        self.openstack("trigger", "delete", trigger.id, table=False)

        def kept():
            here = self.api.checkpoints.list(self.provider, search_opts={"plan_id": self.plan})
            quiet = all(one.status == "available" for one in here)
            return quiet and len(here) == self.keep + 1 and {one.id for one in here}

        kept = wait("what the operation keeps and the one made by hand", kept)
        newest = sorted(protected(), key=lambda one: self.made_at(one), reverse=True)[:self.keep]
        assert kept == {self.checkpoint, *newest}, (kept, newest)
        self.mine = newest
        self.say("scheduled and retained")

    def made_at(self, checkpoint):
        (log,) = self.api.operation_logs.list(
            search_opts={"operation_type": "protect", "checkpoint_id": checkpoint})
        return log.started_at

    def clean_up(self):
        for checkpoint in (self.checkpoint, *self.mine):
            self.openstack("checkpoint", "delete", self.provider, checkpoint, table=False)
        wait("delete", lambda: not self.api.checkpoints.list(self.provider))
        self.openstack("plan", "delete", self.plan, table=False)
        with refused(exceptions.NotFound):
            self.api.plans.get(self.plan)

    def have_quotas(self):
        with refused(exceptions.Forbidden):
            self.api.quotas.update(self.project, {"plans": 1000})
        before = self.api.quotas.defaults(self.project).plans
        assert self.admin.quotas.update(self.project, {"plans": 1}).plans == 1
        assert self.openstack("quotas", "show", "--tenant", self.project)
        resource = [{"id": "5f5c5d7e-0000-4000-8000-000000000001", "type": "Simulated::Resource", "name": "x"}]
        only = self.api.plans.create("only", self.provider, resource, {})
        with refused(exceptions.RequestEntityTooLarge):
            self.api.plans.create("one too many", self.provider, resource, {})
        assert self.api.quotas.get(self.project, detail=True).plans["in_use"] == 1
        self.api.plans.delete(only.id)
        assert self.api.quotas.get(self.project, detail=True).plans["in_use"] == 0
        assert self.admin.quotas.update(self.project, {"plans": before}).plans == before
        self.say("had quotas")


def main():
    world = json.loads(pathlib.Path(sys.argv[1]).read_text())
    one, two = (Tenant(name, world) for name in world["tenants"])
    with concurrent.futures.ThreadPoolExecutor() as both:
        for life in [both.submit(one.live, two), both.submit(two.live, one)]:
            life.result()


if __name__ == "__main__":
    main()
