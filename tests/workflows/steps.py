"""The shell steps of the workflows that can be run without GitHub, and that every place names the same version.

    target/tools/python/bin/python -m unittest tests/workflows/steps.py
"""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
VERSION = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def steps(workflow):
    for job in WORKFLOWS[workflow]["jobs"].values():
        yield from (step for step in job["steps"] if "run" in step)


def run(script, **environment):
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def sources():
    """The folder and name of every file that is not made by a build."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("target", "node_modules", "generated", ".git")]
        yield from (("/" + os.path.relpath(folder, ROOT).removeprefix("."), name) for name in names)


class Steps(unittest.TestCase):
    def test_every_step_is_shell(self):
        for workflow in WORKFLOWS:
            for step in steps(workflow):
                done = subprocess.run(["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False)
                self.assertEqual(done.returncode, 0, f"{workflow}: {done.stderr}")

    def test_a_step_takes_what_others_say_from_the_environment_alone(self):
        for workflow in WORKFLOWS:
            for step in steps(workflow):
                self.assertNotIn("${{", step["run"], workflow)

    def test_a_release_is_made_for_the_tag_of_its_version_only(self):
        script = next(step["run"] for step in steps("release.yml") if step.get("id") == "version")
        with tempfile.NamedTemporaryFile("r+") as output:

            def tagged(name, kind="tag"):
                return run(script, GITHUB_REF_TYPE=kind, GITHUB_REF_NAME=name, GITHUB_OUTPUT=output.name)

            for name, kind in [(f"v{VERSION}", "tag"), ("main", "branch")]:
                done = tagged(name, kind)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(output.read(), f"version={VERSION}\n" * 2)
            done = tagged("v99.0.0")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("is not", done.stdout)

    def test_a_release_says_what_its_entry_of_the_changelog_says(self):
        script = next(step["run"] for step in steps("release.yml") if "gh release create" in step["run"])
        awk = next(line for line in script.splitlines() if line.startswith("awk"))
        with tempfile.TemporaryDirectory() as folder:
            done = run(awk.replace("notes.md", f"{folder}/notes.md"), VERSION=VERSION)
            self.assertEqual(done.returncode, 0, done.stderr)
            notes = (Path(folder) / "notes.md").read_text()
        self.assertIn("### Added", notes)
        self.assertNotRegex(notes, r"(?m)^## ")
        whole = (ROOT / "CHANGELOG.md").read_text()
        self.assertIn(notes.strip(), whole)

    def test_every_place_names_the_version(self):
        for file, expected in [
            ("Dockerfile", f"ARG VERSION={VERSION}\n"),
            ("README.md", f"concertpos-bridge_{VERSION}-1_amd64.deb"),
            ("CHANGELOG.md", f"\n## [{VERSION}] - 20"),
            ("deploy/helm/concertpos-bridge/Chart.yaml", f'\nappVersion: "{VERSION}"\n'),
            ("deploy/kubernetes/bridge.yaml", f"image: concertpos-bridge:{VERSION}\n"),
            ("deploy/kubernetes/replicas.yaml", f"image: concertpos-bridge:{VERSION}\n"),
            ("openapi/openapi.json", f'"version": "{VERSION}"'),
        ]:
            self.assertIn(expected, (ROOT / file).read_text(), file)

    def test_the_tools_of_a_release_have_one_version_everywhere(self):
        found = {}
        for file in ("scripts/package", "scripts/tools", "Dockerfile", ".github/workflows/ci.yml"):
            for name, version in re.findall(r"(cargo-[a-z]+)[@ ](\d+\.\d+\.\d+)", (ROOT / file).read_text()):
                self.assertEqual(found.setdefault(name, version), version, f"{file}: {name}")
        self.assertLessEqual({"cargo-deb", "cargo-auditable", "cargo-cyclonedx", "cargo-deny"}, found.keys())

    def test_every_list_of_packages_is_watched(self):
        listed = list(sources())
        watched = {}
        for update in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]:
            watched[update["package-ecosystem"]] = set(update.get("directories") or [update["directory"]])
        for ecosystem, names, but in [
            ("npm", r"package-lock\.json", ()),
            ("pip", r"requirements\.txt|pyproject\.toml", ()),
            ("cargo", r"Cargo\.toml", ("/simulator",)),  # a member of the workspace
            ("docker", r"Dockerfile", ()),
            ("docker-compose", r"compose\.yaml", ()),
        ]:
            found = {folder for folder, name in listed if re.fullmatch(names, name)}
            self.assertEqual(watched[ecosystem], found - set(but), ecosystem)


if __name__ == "__main__":
    unittest.main()
