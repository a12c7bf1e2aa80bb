"""What the labs share: the binary, the Python environment, the configuration of a private service, a keystone."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))
sys.dont_write_bytecode = True

import common  # noqa: E402, F401


def environment(name="clients"):
    """Makes the Python environments that are missing; the programs of the one named."""
    subprocess.run(["cargo", "xtask", "python"], cwd=ROOT, check=True)
    return ROOT / "target/python" / name / "bin"


def binary():
    """Builds karbor."""
    subprocess.run(["cargo", "build", "--quiet", "--package", "karbor"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug/karbor"


def configure(state, template, **values):
    """A state directory as `template` says, with the values in place of their @NAMES@."""
    shutil.copytree(template, state)
    state.chmod(0o700)
    values["state"] = state
    for file in [path for path in state.rglob("*") if path.is_file()]:
        text = file.read_text()
        for name, value in values.items():
            text = text.replace(f"@{name.upper()}@", str(value))
        file.write_text(text)


def misses_keystone():
    """What to say when keystone's programs are not on this machine; nothing when they are."""
    if pathlib.Path("/usr/bin/keystone-manage").is_file():
        return None
    return "keystone is not on this machine; install it with `apt-get install python3-keystone`"


@contextlib.contextmanager
def keystone(folder, karbor):
    """A private keystone whose catalog says that the service answers at `karbor`; what it says of itself."""
    command = [ROOT / "lab/keystone/start", folder, "--port", "0", "--karbor", karbor, "--cache"]
    log = folder.with_suffix(".log")
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            command, env=common.clean_environment(folder), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors, preexec_fn=common.die_with_parent,
        )
    try:
        if not child.stdout.readline().startswith(b"ready "):
            sys.exit(f"keystone did not start:\n{common.tail(log)}")
        yield json.loads((folder / "clouds.json").read_text())
    finally:
        child.kill()
        child.wait()
