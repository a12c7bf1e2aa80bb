"""The API under load: requests per second, latency, and what a request costs the server."""

import asyncio
import json
import shutil
import subprocess
import time

import common

CONNECTIONS = (1, 8, 32)
PLANS = 100
ORIGINAL_CPU_MS = {"GET /plans": 52, "POST /plans": 44}

# What wrk is to send, and how it tells what it saw.
SCRIPT = """
wrk.method = %(method)s
wrk.headers["X-Auth-Token"] = %(token)s
wrk.headers["Content-Type"] = "application/json"
wrk.body = %(body)s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "refused": %%d, "broken": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def load_wrk(wrk, place, service, method, path, body, connections, seconds):
    quoted = {"method": method, "token": service.token, "body": body or ""}
    script = place / "load.lua"
    # JSON's strings are Lua's, as far as ours go.
    script.write_text(SCRIPT % {name: json.dumps(value) for name, value in quoted.items()})
    script.chmod(0o600)
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script),
               f"http://127.0.0.1:{service.port}{service.base}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 40,
                          preexec_fn=common.die_with_parent)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[7:])
    raise RuntimeError(f"wrk said nothing of use: {done.stdout}{done.stderr}")


def load_own(_wrk, _place, service, method, path, body, connections, seconds):
    """Without wrk: asyncio on one thread. It needs about as much CPU as the server, so it is the limit."""
    content = (body or "").encode()
    request = (f"{method} {service.base}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Auth-Token: {service.token}\r\n"
               f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n").encode() + content
    latencies, refused = [], 0

    async def client(end):
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1 << 20)
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            latencies.append((time.perf_counter() - began) * 1000)
            refused += head[9:10] != b"2"
        writer.close()

    async def all_clients():
        end = time.perf_counter() + seconds
        await asyncio.wait_for(asyncio.gather(*(client(end) for _ in range(connections))), seconds + 30)

    began = time.perf_counter()
    asyncio.run(all_clients())
    ordered = sorted(latencies)
    return {"requests": len(ordered), "seconds": time.perf_counter() - began, "p50": ordered[len(ordered) // 2],
            "p99": ordered[len(ordered) * 99 // 100], "refused": refused, "broken": 0}


def run(options, place):
    seconds = 1 if options.quick else 5
    generator = shutil.which(options.wrk)
    load = load_wrk if generator else load_own
    rows, cpu_by_case = [], {}
    state = place / "api"
    state.mkdir(mode=0o700)
    # More plans are made than the default allows a project.
    (state / "karbor.conf").write_text("[DEFAULT]\nquota_plans = -1\n")
    with common.Service(options, common.with_simulated(state)) as service:
        provider = service.provider("simulated")
        plans = [service.make_plan(f"plan-{number}", provider, common.volumes(1, number)) for number in range(PLANS)]
        time.sleep(0.5)
        rest = service.memory_mb("VmRSS")
        assert len(service.request("GET", "/plans")["plans"]) == PLANS
        new = {"plan": {"name": "new", "description": "made by the bench", "provider_id": provider,
                        "parameters": {}, "resources": common.volumes(1, PLANS)}}
        # POST comes last: it makes plans without end.
        cases = [("GET /plans", "GET", "/plans", None),
                 ("GET /plans/{id}", "GET", f"/plans/{plans[0]['id']}", None),
                 ("POST /plans", "POST", "/plans", json.dumps(new))]
        for name, method, path, body in cases:
            for connections in CONNECTIONS:
                common.say(f"api: {name}, {connections} connections")
                load(generator, place, service, method, path, body, connections, 1)
                before = service.cpu_ms()
                seen = load(generator, place, service, method, path, body, connections, seconds)
                cpu = (service.cpu_ms() - before) / max(seen["requests"], 1)
                cpu_by_case.setdefault(name, []).append(cpu)
                if seen["refused"] or seen["broken"]:
                    raise RuntimeError(f"{name}: {seen['refused']} refused, {seen['broken']} broken")
                original = ORIGINAL_CPU_MS.get(name)
                rows.append([name, connections, f"{seen['requests'] / seen['seconds']:.0f}", f"{seen['p50']:.2f}",
                             f"{seen['p99']:.2f}", f"{cpu:.3f}", f"{original} ms" if original else "",
                             f"{original / 100:.2f} ms" if original else ""])
        common.table(
            "API",
            ["request", "connections", "requests/s", "p50 ms", "p99 ms", "server CPU ms/request", "original's CPU", "goal"],
            rows,
            f"{PLANS} plans; {seconds} s a case after 1 s to warm up; keep-alive; load from "
            f"{'wrk, one thread' if generator else 'our own generator (no wrk): it is the limit'}, on the same machine. "
            "A POST makes a plan with one resource; each is durable before it is answered.",
        )
        made = service.memory_mb("VmRSS")
        common.table(
            "Memory of the service", ["", "karbor", "original", "goal"],
            [["RSS with 100 plans, before the load", f"{rest:.0f} MB", "", ""],
             ["RSS after the load above", f"{made:.0f} MB", "314 MB", "40 MB"],
             ["the most it ever was (VmHWM)", f"{service.memory_mb('VmHWM'):.0f} MB", "", ""]],
        )
