"""The Helm chart: lint, output, refusals, and that it installs what the plain manifests install.

    target/tools/python/bin/python -m unittest tests/deploy/chart.py

Needs helm and kubernetes-validate beside this Python, and promtool.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/concertpos-bridge"
TOOLS = Path(sys.executable).parent
PLAIN = {"one": ROOT / "deploy/kubernetes/bridge.yaml", "several": ROOT / "deploy/kubernetes/replicas.yaml"}
VALUES = {
    "one": {"secret": {"values": {"myfestival": "key"}}},
    "several": {
        "secret": {"values": {"myfestival": "key", "database": "postgres://…", "cluster": "secret"}},
        "cluster": {"enabled": True},
    },
}


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def helm(verb, *arguments, values=None):
    release = ["concertpos-bridge"] if verb == "template" else []
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        return run(TOOLS / "helm", verb, *release, CHART, "--values", file.name, *arguments)


def output(values, *arguments):
    done = helm("template", *arguments, values=values)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def by_kind(text):
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(text) if one}


def without(document, *keys):
    """The document without these keys at any depth."""
    if isinstance(document, dict):
        return {key: without(value, *keys) for key, value in document.items() if key not in keys}
    if isinstance(document, list):
        return [without(value, *keys) for value in document]
    return document


def pod(documents):
    return documents["Deployment/concertpos-bridge"]["spec"]["template"]["spec"]


def settings(documents):
    """Every setting by its name: those of the file, and over them those of the environment."""

    def flat(table, prefix=""):
        for key, value in table.items():
            yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    set_by_file = dict(flat(tomllib.loads(documents["ConfigMap/concertpos-bridge"]["data"]["bridge.toml"])))
    # The image listens there when nothing else says where.
    environment = {"server.listen": "0.0.0.0:8080"}
    for variable in pod(documents)["containers"][0].get("env", []):
        if variable["name"].startswith("BRIDGE_"):
            name = variable["name"].removeprefix("BRIDGE_").replace("__", ".").lower()
            environment[name] = variable.get("value") or str(variable.get("valueFrom", ""))
    return {name: str(value).replace("-keys/", "-secrets/") for name, value in (set_by_file | environment).items()}


class Chart(unittest.TestCase):
    maxDiff = None

    def test_helm_accepts_the_chart_with_every_example(self):
        for example in sorted((CHART / "examples").glob("*.yaml")):
            done = helm("lint", "--strict", "--values", example)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_it_makes_is_valid(self):
        many = {
            "ingress": {"enabled": True, "host": "bridge.example", "tlsSecret": "tls", "annotations": {"a": "b"}},
            "serviceMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True},
            "podAnnotations": {"a": "b"},
            "podLabels": {"a": "b"},
            "env": {"BRIDGE_TELEMETRY__LOG": "debug"},
            "imagePullSecrets": [{"name": "registry"}],
            "image": {"digest": "sha256:" + "0" * 64},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "ipv6": True,
            "networkPolicy": {"egress": {"extra": [{"ports": [{"port": 4318}]}]}},
        }
        for kind, values in VALUES.items():
            for more in ({}, many):
                documents = by_kind(output(values | more))
                operator = [one for one in documents.values() if one["apiVersion"].startswith("monitoring.coreos.com")]
                self.assertEqual(len(operator), 2 if more else 0, kind)
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                    yaml.safe_dump_all([one for one in documents.values() if one not in operator], file)
                    file.flush()
                    done = run(TOOLS / "kubernetes-validate", "--strict", file.name)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_alerts_are_those_of_the_rules_file(self):
        documents = by_kind(output(VALUES["one"] | {"prometheusRule": {"enabled": True}}))
        rules = documents["PrometheusRule/concertpos-bridge"]["spec"]
        self.assertEqual(rules, yaml.safe_load((ROOT / "deploy/prometheus-rules.yaml").read_text()))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(rules, file)
            file.flush()
            done = run("promtool", "check", "rules", file.name)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_monitor_finds_the_port_and_the_pods_are_not_scraped_twice(self):
        documents = by_kind(output(VALUES["one"] | {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}))
        monitor, service = documents["ServiceMonitor/concertpos-bridge"], documents["Service/concertpos-bridge-metrics"]
        self.assertEqual(monitor["metadata"]["labels"]["release"], "p")
        wanted = monitor["spec"]["selector"]["matchLabels"]
        self.assertLessEqual(wanted.items(), service["metadata"]["labels"].items())
        self.assertFalse(wanted.items() <= documents["Service/concertpos-bridge"]["metadata"]["labels"].items())
        self.assertEqual(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"])
        self.assertNotIn(
            "prometheus.io/scrape", documents["Deployment/concertpos-bridge"]["spec"]["template"]["metadata"]["annotations"]
        )

    def test_a_mistake_is_refused_and_named(self):
        one = VALUES["one"]
        for values, said in [
            ({}, "secret.existing"),
            (one | {"payments": {"craete": "never"}}, "craete"),
            (one | {"payments": {"create": "always"}}, "payments.create"),
            (one | {"config": "[server]\n"}, "config"),
            (one | {"env": {"BRIDGE_TELEMETRY_LOG": "debug"}}, "env"),
            (one | {"image": {"digest": "latest"}}, "image.digest"),
            (one | {"shutdown": {"graceSeconds": 5}}, "graceSeconds"),
            (one | {"cluster": {"enabled": True}}, "secret.values.database"),
            (VALUES["several"] | {"cluster": {"enabled": True, "replicas": 1}}, "replicas"),
            (one | {"secret": {"existing": "a", "values": {"a": "b"}}}, "exclude each other"),
            (one | {"ingress": {"enabled": True}}, "ingress.host"),
        ]:
            done = helm("template", values=values)
            self.assertNotEqual(done.returncode, 0, said)
            self.assertIn(said, done.stderr)

    def test_a_changed_setting_or_key_restarts_the_pods(self):
        def annotations(values):
            return by_kind(output(values))["Deployment/concertpos-bridge"]["spec"]["template"]["metadata"]["annotations"]

        before = annotations(VALUES["one"])
        self.assertNotEqual(before, annotations({"secret": {"values": {"myfestival": "new"}}}))
        self.assertNotEqual(before, annotations(VALUES["one"] | {"config": "[instances.other]\n"}))

    def test_the_records_outlive_the_release(self):
        claim = by_kind(output(VALUES["one"]))["PersistentVolumeClaim/concertpos-bridge"]
        self.assertEqual(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        kept = output(VALUES["one"] | {"persistence": {"existingClaim": "kept"}})
        self.assertNotIn("PersistentVolumeClaim/concertpos-bridge", by_kind(kept))
        self.assertIn("claimName: kept", kept)

    def test_it_installs_what_the_plain_manifests_install(self):
        # Names, and what a chart is known by; `secrets` is `keys` with one bridge; the rest is compared as settings in force.
        apart = ("labels", "annotations", "imagePullPolicy", "env", "data", "stringData", "volumeMounts", "volumes")
        for kind, plain in PLAIN.items():
            ours = by_kind(output(VALUES[kind]).replace("app.kubernetes.io/instance: concertpos-bridge", ""))
            plain = by_kind(plain.read_text())
            self.assertEqual(ours.keys(), plain.keys())
            for name, document in plain.items():
                made = without(ours[name], *apart)
                if name.startswith("Service/"):
                    self.assertEqual(made["spec"].pop("type"), "ClusterIP")
                self.assertEqual(made, without(document, *apart), f"{kind}: {name}")

            def mounted(documents):
                volumes = {one["name"]: without(one, "name") for one in pod(documents)["volumes"]}
                mounts = pod(documents)["containers"][0]["volumeMounts"]
                return [
                    {**one, "name": "", "mountPath": one["mountPath"].replace("-keys", "-secrets"), **volumes[one["name"]]}
                    for one in mounts
                ]

            self.assertEqual(mounted(ours), mounted(plain))

    def test_its_settings_in_force_are_those_of_the_plain_manifests(self):
        for kind, plain in PLAIN.items():
            ours, plain = settings(by_kind(output(VALUES[kind]))), settings(by_kind(plain.read_text()))
            self.assertEqual(ours["server.admin_listen"], "0.0.0.0:9090")
            self.assertEqual(ours, plain, kind)


if __name__ == "__main__":
    unittest.main()
