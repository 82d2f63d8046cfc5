"""What a clone costs by what it does: clone_cost.py OUT [poise | park | cold] [CLONES]

OUT is an output folder with an overlay (`imgbuild build`). A template is booted with its
RAM in a file on tmpfs, and its state saved; each clone maps that file privately. `cold`
boots guests without a template. Nobody supervises these guests: no sandbox, no user of
their own.

Milliseconds of QEMU's CPU are the best of all clones, the others their median: pages of
guest RAM that are the clone's own, and blocks of code that QEMU translated.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ["QEMU", "restored", "ready", "heartbeat", "status", "log-in"]
OUT = Path(sys.argv[1]).resolve()
GOAL = sys.argv[2] if len(sys.argv) > 2 else "poise"
CLONES = int(sys.argv[3]) if len(sys.argv) > 3 else 5
MANIFEST = json.loads((OUT / "manifest.json").read_text())
SHARED = [{"capability": "x-ignore-shared", "state": True}]


def identity(index, public_key):
    """As init/src/identity.rs has it."""
    record = struct.pack("<8sHH16s", b"TTYIDENT", 1, 256, b"g%05d" % index)
    record += bytes([0x52, 0x54, 0, 0, 0, index, 10, 0, 2, 15, 24, 0, 10, 0, 2, 2])
    record += bytes(4) + public_key + os.urandom(64) + bytes(80)
    return record + hashlib.sha256(record).digest()


class Guest:
    """A guest that is killed when it is left."""

    def __init__(self, place, index, ram=None, share="off", options=()):
        self.folder = place / f"{index:05}"
        self.folder.mkdir()
        self.key = place / "key"
        public_key = base64.b64decode((place / "key.pub").read_text().split()[1])[-32:]
        (self.folder / "identity").write_bytes(identity(index, public_key))
        shutil.copy(OUT / "overlays/00000.qcow2", self.folder / "overlay")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        megahertz = re.search(r"cpu MHz\s*: (\d+)", Path("/proc/cpuinfo").read_text())[1]
        goal = {"cold": ""}.get(GOAL, f" tty.{GOAL}")
        disk = {
            "node-name": "disk",
            "driver": "qcow2",
            "cache": {"no-flush": True},
            "file": {"driver": "file", "filename": f"{self.folder}/overlay"},
            "backing": {
                "driver": "qcow2",
                "read-only": True,
                "file": {"driver": "file", "filename": f"{OUT}/base.qcow2", "read-only": True},
            },
        }
        backend = f"memory-backend-file,id=ram,mem-path={ram},share={share},size=64M"
        self.ram = ram
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-name", f"g{index:05}"]
            + ["-machine", "microvm,acpi=off,rtc=on" + (",memory-backend=ram" if ram else "")]
            + (["-object", backend] if ram else [])
            # Room for all code: none is translated twice.
            + ["-accel", "tcg,tb-size=64", "-cpu", "qemu64", "-m", "64M", "-nodefaults"]
            + ["-no-user-config", "-no-reboot", "-display", "none"]
            + ["-kernel", f"{OUT}/{MANIFEST['kernel']['file']}"]
            + ["-initrd", f"{OUT}/initramfs.cpio.gz", "-append"]
            + [f"{MANIFEST['command_line']} tsc_early_khz={megahertz}000 lapic_khz=1000000{goal}"]
            + ["-chardev", f"socket,id=console,path={self.folder}/console,server=on,wait=off"]
            + ["-serial", "chardev:console"]
            + ["-chardev", f"socket,id=monitor,path={self.folder}/monitor,server=on,wait=off"]
            + ["-mon", "chardev=monitor,mode=control"]
            + ["-fw_cfg", f"name=opt/imgbuild/identity,file={self.folder}/identity"]
            + ["-blockdev", json.dumps(disk), "-device", "virtio-blk-device,drive=disk"]
            + ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
            # Else every clone would announce itself, by code that it runs.
            + ["-device", "virtio-net-device,netdev=net,guest_announce=off", *options]
        )
        self.console = self.connect("console").makefile("rwb", buffering=0)
        self.monitor = self.connect("monitor").makefile("rwb", buffering=0)
        self.monitor.readline()
        self.qmp("qmp_capabilities")

    def connect(self, name):
        while True:
            try:
                stream = socket.socket(socket.AF_UNIX)
                stream.settimeout(60)
                stream.connect(f"{self.folder}/{name}")
                return stream
            except OSError:
                assert self.process.poll() is None, "QEMU ended"
                time.sleep(0.005)

    def qmp(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.monitor.write(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self.monitor.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]

    def event(self, name):
        mark = f'"event":"{name}"'.encode()
        while mark not in (line := self.console.readline()):
            assert line, "the guest ended"
        return json.loads(line)

    def do(self, stage):
        if stage == "ready":
            if GOAL != "cold":
                self.console.write(b"identify %d.%09d\n" % divmod(time.time_ns(), 10**9))
            self.event("ready")
        elif stage == "heartbeat":
            self.console.write(b"heartbeat\n")
            self.event("heartbeat")
        elif stage == "status":
            self.console.write(b"status\n")
            self.event("reply")
        elif stage == "log-in":
            options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
            subprocess.run(
                ["ssh", *options, "-i", self.key, "-p", str(self.port), "root@127.0.0.1", "status"],
                check=True,
                capture_output=True,
            )

    def cost(self):
        """Milliseconds of CPU, own pages and translated blocks, once it is at rest."""
        cpu = self.cpu_ms()
        while True:
            time.sleep(0.2)
            now = self.cpu_ms()
            if now - cpu < 0.5:
                break
            cpu = now
        blocks = self.qmp("human-monitor-command", **{"command-line": "info jit"})
        return now, self.own_pages(), int(re.search(r"TB count\s+(\d+)", blocks)[1])

    def cpu_ms(self):
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

    def own_pages(self):
        smaps = Path(f"/proc/{self.process.pid}/smaps").read_text()
        found = self.ram and re.search(rf"{self.ram}\n(?:\w+: .*\n)*?Anonymous: +(\d+)", smaps)
        return int(found[1]) // 4 if found else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def save_template(place, ram):
    with Guest(place, 99, ram, "on") as template:
        template.event({"poise": "poised", "park": "parked"}[GOAL])
        time.sleep(3)
        template.qmp("migrate-set-capabilities", capabilities=SHARED)
        template.qmp("migrate", uri=f"exec:cat > {place}/state")
        while template.qmp("query-migrate").get("status") != "completed":
            time.sleep(0.02)


def main():
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(
        dir="/dev/shm"
    ) as file:
        place, ram = Path(folder), None if GOAL == "cold" else file.name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "key"], check=True
        )
        if ram:
            save_template(place, ram)
        costs = {stage: [] for stage in STAGES}
        for index in range(CLONES):
            options = ["-incoming", "defer"] if ram else []
            with Guest(place, index, ram, options=options) as clone:
                if ram:
                    costs["QEMU"].append(clone.cost())
                    clone.qmp("migrate-set-capabilities", capabilities=SHARED)
                    clone.qmp("migrate-incoming", uri=f"exec:cat {place}/state")
                for stage in STAGES[1 if ram else 2 :]:
                    clone.do(stage)
                    costs[stage].append(clone.cost())
    print("stage       CPU, ms  own pages  blocks of code")
    for stage, each in costs.items():
        if each:
            cpu, pages, blocks = zip(*each)
            middle = statistics.median_low
            print(f"{stage:10} {min(cpu):8.1f} {middle(pages):10} {middle(blocks):15}")


main()
