"""The Debian package: installed, started, upgraded, removed and purged, in a folder that takes the place of the root.

    target/tools/python/bin/python -m unittest tests/deploy/package.py

Needs dpkg, fakeroot if not root, systemd-analyze, and the built program. The service manager's part is played here: folders,
credentials, readiness and the stop, as the installed unit says. `scripts/try-package` lets systemd itself do it.
"""

import gzip
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/concertpos-bridge"
NAME = "concertpos-bridge"
PATIENCE = 30


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Machine:
    """A folder with a package database of its own."""

    def __init__(self, folder):
        self.root = folder / "root"
        self.calls = folder / "calls"
        shims = folder / "shims"
        shims.mkdir()
        # Scripts of the package run here, where a service manager may run too: it must not hear of this.
        for name in ("systemctl", "deb-systemd-invoke"):
            (shims / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{self.calls}\n')
            (shims / name).chmod(0o755)
        self.environment = os.environ | {"PATH": f"{shims}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        for path in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"):
            (self.root / path).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()

    def dpkg(self, *arguments):
        # What it depends on is on this machine, and not in the folder.
        flags = [f"--root={self.root}", f"--log={self.root}/dpkg.log", "--force-script-chrootless", "--force-depends", "--force-confold"]
        fake = [] if os.getuid() == 0 else ["fakeroot"]
        done = run(*fake, "dpkg", *flags, *arguments, env=self.environment)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def path(self, path):
        return self.root / str(path).lstrip("/")

    def state(self):
        done = run("dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "--show", "--showformat=${Status} ${Version}", NAME)
        return done.stdout

    def unit(self):
        lines = self.path(f"/usr/lib/systemd/system/{NAME}.service").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Service:
    """What the service manager does with the unit: prepares its folders, starts its command, waits until it is ready."""

    def __init__(self, machine):
        unit = machine.unit()
        state = machine.path("/var/lib/" + unit["StateDirectory"])
        state.mkdir(parents=True, exist_ok=True)
        name, source = unit["LoadCredential"].split(":")
        for key in machine.path(source).iterdir():
            credentials = machine.path(f"/run/credentials/{NAME}.service")
            credentials.mkdir(parents=True, exist_ok=True)
            (credentials / f"{name}_{key.name}").write_bytes(key.read_bytes())
        notices = str(machine.root / "notify")
        Path(notices).unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(notices)
        self.socket.settimeout(PATIENCE)
        command = [machine.path(word) if word.startswith("/") else word for word in shlex.split(unit["ExecStart"])]
        self.log = open(machine.root / "log", "a+")
        self.process = subprocess.Popen(
            command, cwd=machine.path(unit["WorkingDirectory"]), env={"NOTIFY_SOCKET": notices}, stderr=self.log, stdout=self.log
        )

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.end()

    def ready(self):
        while b"READY=1" not in self.socket.recv(4096):
            pass

    def end(self):
        status = self.process.wait(PATIENCE)
        self.socket.close()
        self.log.seek(0)
        log = self.log.read()
        self.log.close()
        return status, log

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.end()


def build(folder, version):
    done = run(ROOT / "scripts/package", "--debug", folder, version)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return next(folder.glob(f"*_{version}_*.deb"))


class Package(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.kept = tempfile.TemporaryDirectory()
        cls.first, cls.second = (build(Path(cls.kept.name), version) for version in ("0.1.0-1", "0.1.1-1"))

    @classmethod
    def tearDownClass(cls):
        cls.kept.cleanup()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.machine = Machine(Path(folder.name))

    def start(self):
        service = Service(self.machine)
        self.addCleanup(service.kill)
        return service

    def simulate(self):
        """A gateway, and its address."""
        gateway = subprocess.Popen([PROGRAM, "simulate", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)

        def end():
            gateway.terminate()
            gateway.wait(PATIENCE)
            gateway.stdout.close()

        self.addCleanup(end)
        return gateway.stdout.readline().strip()

    def configure(self):
        """Does what the file asks for before the first start, and says where it then listens."""
        port, url = free_port(), self.simulate()
        file = self.machine.path("/etc/concertpos-bridge/bridge.toml")
        text = file.read_text().replace("# [instances.myfestival]", '[instances.myfestival]\nslug = "demo"')
        text = text.replace('# api_key_file = "/run', f'api_key_file = "{self.machine.root}/run')
        file.write_text(f'{text}\n[server]\nlisten = "127.0.0.1:{port}"\n[gateway]\n{url.replace("gateway.", "")}\n')
        (self.machine.path("/etc/concertpos-bridge/keys") / "myfestival").write_text("demo-key\n")
        return f"http://127.0.0.1:{port}"

    def sell(self, address):
        sale = {"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]}
        headers = {"Authorization": "Bearer demo-key", "Content-Type": "application/json", "Idempotency-Key": "a-sale"}
        url = f"{address}/v1/instances/myfestival/points-of-sale/1/payments"
        request = urllib.request.Request(url, json.dumps(sale).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers.get("Idempotent-Replayed")

    def test_it_has_the_program_with_all_that_belongs_to_it(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        for path in [
            "/usr/bin/concertpos-bridge",
            "/usr/share/doc/concertpos-bridge/copyright",
            "/usr/share/doc/concertpos-bridge/docs/operating.md",
            "/usr/share/doc/concertpos-bridge/examples/bridge.toml",
            "/usr/share/zsh/vendor-completions/_concertpos-bridge",
            "/usr/share/fish/vendor_completions.d/concertpos-bridge.fish",
        ]:
            self.assertTrue(machine.path(path).stat().st_size > 0, path)
        self.assertEqual(run("dpkg-deb", "--ctrl-tarfile", self.first).returncode, 0)
        conffiles = machine.path(f"/var/lib/dpkg/info/{NAME}.conffiles").read_text().split()
        self.assertEqual(conffiles, ["/etc/concertpos-bridge/bridge.toml"])
        depends = run("dpkg-deb", "--field", self.first, "Depends").stdout
        self.assertRegex(depends, r"\blibc6\b")
        self.assertRegex(depends, r"\bca-certificates\b")
        page = gzip.decompress(machine.path("/usr/share/man/man1/concertpos-bridge-serve.1.gz").read_bytes()).decode()
        self.assertIn("\\-\\-config", page)
        completions = machine.path("/usr/share/bash-completion/completions/concertpos-bridge")
        self.assertEqual(run("bash", "-n", completions).returncode, 0)
        licences = machine.path("/usr/share/doc/concertpos-bridge/third-party-licences.txt").read_text()
        for crate in ("actix-web", "tokio", "rustls", "redb"):
            self.assertRegex(licences, rf"(?m)^{crate} [0-9.]+: ")
        self.assertNotIn("proptest", licences.split("=====")[0])

    def test_its_unit_is_the_one_that_is_documented_and_systemd_accepts_it(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        documented = (ROOT / "deploy/systemd/concertpos-bridge.service").read_text()
        installed = machine.path(f"/usr/lib/systemd/system/{NAME}.service").read_text()
        self.assertEqual(installed, documented.replace("/usr/local/bin/", "/usr/bin/"))
        unit = machine.path(f"/{NAME}.service")
        unit.write_text(installed.replace("ExecStart=/usr", f"ExecStart={machine.root}/usr"))
        done = run("systemd-analyze", "verify", unit)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_it_starts_only_with_an_instance_and_says_so(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        self.assertEqual(machine.path("/etc/concertpos-bridge/keys").stat().st_mode & 0o777, 0o700)
        enabled = [path for path in machine.path("/etc").rglob("*.service")]
        self.assertEqual(enabled, [], "enabled without being asked")
        status, log = self.start().end()
        self.assertEqual(status, int(machine.unit()["RestartPreventExitStatus"]), log)
        self.assertIn("names no instance", log)

    def test_it_is_installed_configured_upgraded_removed_and_purged_without_losing_a_payment(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        self.assertEqual(machine.state(), "install ok installed 0.1.0-1")
        address = self.configure()
        config = machine.path("/etc/concertpos-bridge/bridge.toml").read_text()
        service = self.start()
        service.ready()
        self.assertEqual(self.sell(address), (201, None))

        # Systemd restarts it after the upgrade; here it is stopped and started by hand.
        machine.dpkg("--install", self.second)
        self.assertEqual(machine.state(), "install ok installed 0.1.1-1")
        script = machine.path(f"/var/lib/dpkg/info/{NAME}.postinst").read_text()
        self.assertIn("deb-systemd-invoke try-restart concertpos-bridge.service", script)
        status, log = service.stop()
        self.assertEqual(status, 0, log)
        self.assertEqual(machine.path("/etc/concertpos-bridge/bridge.toml").read_text(), config)
        service = self.start()
        service.ready()
        self.assertEqual(self.sell(address), (201, "true"))
        status, log = service.stop()
        self.assertEqual(status, 0, log)

        machine.dpkg("--remove", NAME)
        self.assertFalse(machine.path("/usr/bin/concertpos-bridge").exists())
        self.assertFalse(machine.path(f"/usr/lib/systemd/system/{NAME}.service").exists())
        self.assertEqual(machine.path("/etc/concertpos-bridge/bridge.toml").read_text(), config)
        machine.dpkg("--install", self.second)
        service = self.start()
        service.ready()
        self.assertEqual(self.sell(address), (201, "true"), "the records were lost")
        service.stop()

        # As with systemd, which keeps the folder of a dynamic user there.
        state = machine.path("/var/lib/private/concertpos-bridge")
        state.parent.mkdir()
        machine.path("/var/lib/concertpos-bridge").rename(state)
        said = machine.dpkg("--purge", NAME)
        self.assertEqual(machine.state(), "")
        self.assertFalse(machine.path("/etc/concertpos-bridge/bridge.toml").exists())
        self.assertEqual(machine.path("/etc/concertpos-bridge/keys/myfestival").read_text(), "demo-key\n")
        self.assertTrue((state / "data/journal/payments.redb").exists())
        self.assertIn("/var/lib/private/concertpos-bridge is kept", said)

    def test_a_purge_leaves_nothing_where_nothing_was_kept(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        machine.dpkg("--purge", NAME)
        self.assertFalse(machine.path("/etc/concertpos-bridge").exists())
        left = [path for path in machine.root.rglob("*concertpos*")]
        self.assertEqual(left, [])

    def test_the_settings_that_are_installed_name_the_credential_that_the_unit_gives(self):
        machine = self.machine
        machine.dpkg("--install", self.first)
        unit = machine.unit()
        self.assertRegex(unit["ExecStart"], r"^/usr/bin/concertpos-bridge serve --config /etc/concertpos-bridge/bridge\.toml$")
        name, folder = unit["LoadCredential"].split(":")
        told = re.search(r'api_key_file = "(.+)"', machine.path("/etc/concertpos-bridge/bridge.toml").read_text())[1]
        self.assertEqual(told, f"/run/credentials/{NAME}.service/{name}_myfestival")
        self.assertTrue(machine.path(folder).is_dir())


if __name__ == "__main__":
    unittest.main()
