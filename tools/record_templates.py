"""Ask the docker client again for the answers in tests/unit/cli/docker_templates.json, of a newer version for instance.

Usage: python -m tools.record_templates [TEMPLATE...]    the given templates are added
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.dockerapi import answering

TABLE = Path(__file__).resolve().parents[1] / "tests/unit/cli/docker_templates.json"


def main() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    templates = dict.fromkeys([*(template for template, _, _ in table["answers"]), *sys.argv[1:]])
    lines = []
    answers = {"/containers/c1/json": table["document"]}
    with tempfile.TemporaryDirectory() as directory, answering(directory, answers) as env:
        for template in templates:
            argv = ["docker", "container", "inspect", "--format", template, "c1"]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
            failed = done.returncode != 0
            answer = [template, None if failed else done.stdout[:-1], done.stderr.strip() if failed else None]
            lines.append(f"  {json.dumps(answer)}")
    document = json.dumps(table["document"])
    listed = ",\n".join(lines)
    TABLE.write_text(f'{{\n "document": {document},\n "answers": [\n{listed}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
