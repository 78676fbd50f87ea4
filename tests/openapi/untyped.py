"""Counts the fields without a type in the clients that scripts/clients generated, and holds docs/clients.md to it.

Fails on any such field, and where the table of docs/clients.md says other versions or counts than were found. Objects that
may have any member (`RawParameters`, `additionalProperties`) are no such fields: what they are is what they say.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples/clients"
COMMENT = re.compile(r"/\*.*?\*/|\"\"\".*?\"\"\"", re.DOTALL)
REQUIREMENTS = dict(line.split("==") for line in (ROOT / "tests/requirements.txt").read_text().split() if "==" in line)


def npm(folder: str, package: str) -> str:
    lock = json.loads((CLIENTS / folder / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


# Language, generator, its version, the files with its types, how a line declares a field, and what it has where no type is
# known.
TYPESCRIPT = r"""^\s+['"]?[\w-]+['"]?\??: (.+)""", r'(?<!")\b(unknown|any)\b(?!")'
GENERATORS = [
    ("TypeScript", "openapi-typescript", npm("typescript", "openapi-typescript"), "typescript/generated/bridge.d.ts",
     *TYPESCRIPT),
    ("TypeScript", "@hey-api/openapi-ts", npm("openapi-ts", "@hey-api/openapi-ts"),
     "openapi-ts/generated/bridge/types.gen.ts", *TYPESCRIPT),
    ("Python", "openapi-python-client", REQUIREMENTS["openapi-python-client"],
     "python/generated/concertpos_bridge_client/models/*.py", r"^    (?!additional_properties)\w+: (.+)", r"\bAny\b"),
    ("Rust", "openapi-generator `rust`", REQUIREMENTS["openapi-generator-cli"], "rust/generated/src/models/*.rs",
     r"^    pub \w+: (.+)", r"(?<!String, )serde_json::Value"),
    ("Go", "openapi-generator `go`", REQUIREMENTS["openapi-generator-cli"], "go/generated/model_*.go",
     r"^\t(?!AdditionalProperties)[A-Z]\w* (\S+) `json", r"(?<!map\[string\])interface\{\}"),
    ("Java", "openapi-generator `java`, `native`", REQUIREMENTS["openapi-generator-cli"],
     "java/generated/src/main/java/bridge/client/model/*.java", r"^  private (?!.*additionalProperties)(.+?) \w+( = .*)?;",
     r"(?<!String, )\bObject\b"),
]


def count(files: str, field: str, untyped: str) -> tuple[int, list[str]]:
    """How many fields there are, and those without a type."""
    fields, holes = 0, []
    for path in sorted(CLIENTS.glob(files)):
        # In comments, a line may look like a field.
        text = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), path.read_text())
        for number, line in enumerate(text.split("\n"), 1):
            if found := re.match(field, line):
                fields += 1
                if re.search(untyped, found[1]):
                    holes.append(f"{path.relative_to(CLIENTS)}:{number}: {line.strip()}")
    return fields, holes


failed = False
table = (ROOT / "docs/clients.md").read_text()
for language, generator, version, *how in GENERATORS:
    fields, holes = count(*how)
    print(f"{language}, {generator} {version}: {fields} fields, {len(holes)} without a type")
    for hole in holes:
        print(f"  {hole}")
    row = f"| {language} | {generator} {version} | {len(holes)} |"
    if row not in table:
        print(f"  docs/clients.md has no row that begins: {row}")
    # Fewer fields than the document has properties: the pattern above does not fit what was generated.
    failed |= bool(holes) or row not in table or fields < 200
sys.exit(failed)
