"""Backup, unchanged re-run and restore of a mixed tree: karbor, restic and borg, one after the other."""

import datetime
import os
import shutil

import common
import tree

LIMIT = 600
STEPS = ("backup", "unchanged", "restore")


class Karbor:
    """The real service, asked through its client. CPU is both; memory is the service's (the client is
    a process of some 15 MB)."""

    name = "karbor"

    def __init__(self, options, place, source):
        self.place, self.target = place / "karbor", place / "karbor-restored"
        state = self.place / "state"
        applications = state / "applications.d"
        applications.mkdir(parents=True, mode=0o700)
        self.target.mkdir()
        (place / "karbor-first").mkdir()
        (place / "karbor-first" / "file").write_text("so that the repository is there, as the peers' are\n")
        for name, path in (("tree", source), ("first", place / "karbor-first")):
            (applications / f"{name}.toml").write_text(
                f'name = "{name}"\nprojects = ["default"]\nrestore_roots = ["{self.target}"]\n'
                f'[[directory]]\nname = "files"\npath = "{path}"\n')
        self.service = common.Service(options, state)
        self.service.__enter__()
        self.client("protect", "first", "--wait")

    def end(self):
        self.service.end()

    def client(self, *arguments):
        return common.Measured([self.service.binary, *arguments], LIMIT,
                               environment=self.service.environment, place=self.place)

    def measured(self, *arguments):
        self.service.forget_peak()
        before = self.service.cpu_ms()
        done = self.client(*arguments)
        done.cpu += (self.service.cpu_ms() - before) / 1000
        done.peak_mb = self.service.memory_mb("VmHWM")
        done.inside = self.inside()
        return done

    def inside(self):
        """What the newest operation took by its log: the client asks once a second at the end."""
        logs = self.service.request("GET", "/operation_logs")["operation_logs"]
        newest = max(logs, key=lambda log: log["started_at"])
        began, ended = (datetime.datetime.fromisoformat(newest[key]) for key in ("started_at", "ended_at"))
        return (ended - began).total_seconds()

    def backup(self):
        return self.measured("protect", "tree", "--wait")

    def restore(self):
        return self.measured("restore", "tree", "--latest", "--wait", "--restore-to", str(self.target))

    def restored(self):
        return self.target / "tree" / "files"

    def stored(self):
        return tree.stored(self.service.state / "bank")


class Peer:
    """A program that runs once for each step."""

    def __init__(self, place, source, secret):
        self.place, self.source = place / self.name, source
        self.repository, self.target = self.place / "repository", place / f"{self.name}-restored"
        self.place.mkdir()
        self.target.mkdir()
        self.environment = {**common.clean_environment(self.place), secret: "not a secret"}

    def end(self):
        pass

    def command(self, *arguments, cwd=None):
        return common.Measured([self.name, *arguments], LIMIT, cwd=cwd, environment=self.environment, place=self.place)

    def restored(self):
        return self.target / str(self.source).lstrip("/")

    def stored(self):
        return tree.stored(self.repository)


class Restic(Peer):
    name = "restic"

    def __init__(self, _options, place, source):
        super().__init__(place, source, "RESTIC_PASSWORD")
        self.always = ("--no-cache", "-q", "-r", str(self.repository))
        self.command("init", "--repository-version", "2", *self.always)

    def backup(self):
        return self.command("backup", *self.always, str(self.source))

    def restore(self):
        return self.command("restore", *self.always, "latest", "--target", str(self.target))


class Borg(Peer):
    name = "borg"

    def __init__(self, _options, place, source):
        super().__init__(place, source, "BORG_PASSPHRASE")
        self.environment["BORG_BASE_DIR"] = str(self.place)
        self.command("init", "-e", "repokey", str(self.repository))
        self.made = 0

    def backup(self):
        self.made += 1
        return self.command("create", "--compression", "zstd,1", f"{self.repository}::a{self.made}", str(self.source))

    def restore(self):
        return self.command("extract", f"{self.repository}::a{self.made}", cwd=self.target)


def measure(tool, source, rerun):
    """The three steps of one tool; what was restored must be the source."""
    seen = {}
    for step in STEPS:
        common.say(f"backup: {tool.name}, {step}")
        runs = []
        for _ in range(rerun if step == "unchanged" else 1):
            os.sync()
            runs.append(tool.restore() if step == "restore" else tool.backup())
        seen[step] = sorted(runs, key=lambda run: run.wall)[len(runs) // 2]
        seen[step].stored = tool.stored()
    found = tree.differences(source, tool.restored())
    if found:
        raise RuntimeError(f"{tool.name} restored something else: {len(found)} differences, e.g. {found[:5]}")
    return seen


def run(options, place):
    place = place / "backup"
    source = place / "source"
    source.mkdir(parents=True)
    common.say("backup: making the tree")
    files, size = tree.make(source, options.quick)
    versions = {"karbor": common.tool_version(str(options.karbor), "--version"),
                "restic": common.tool_version("restic", "version"), "borg": common.tool_version("borg", "--version")}
    results = {}
    for kind in (Karbor, Restic, Borg):
        if not versions[kind.name]:
            common.say(f"backup: no {kind.name} on this machine; its rows are missing")
            continue
        tool = kind(options, place, source)
        try:
            results[kind.name] = measure(tool, source, 1 if options.quick else 3)
        finally:
            tool.end()
        for used in place.glob(f"{kind.name}*"):
            shutil.rmtree(used, ignore_errors=True)
    rows = []
    for step in STEPS:
        for name, seen in results.items():
            done = seen[step]
            inside = f" ({done.inside:.2f} by its log)" if hasattr(done, "inside") else ""
            rows.append([step, name, f"{done.wall:.2f}{inside}", f"{done.cpu:.2f}", f"{done.peak_mb:.0f}",
                         f"{done.stored / 1e6:.0f}"])
    common.table(
        f"Backup of {size / 1e6:.0f} MB in {files} files",
        ["step", "tool", "wall s", "CPU s", "peak RSS MB", "stored MB"], rows,
        f"{'; '.join(filter(None, versions.values()))}. karbor: service and client, zstd 1, peak RSS of the service. "
        "restic: format 2, --no-cache, default compression (auto). borg: repokey, zstd,1, its caches kept between runs. "
        "Repositories were made before; the source is in the page cache. Unchanged: median of "
        f"{1 if options.quick else 3}. Every restore was compared with the source: names, modes, times, content.")
