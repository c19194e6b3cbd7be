from __future__ import annotations

import pytest

from hutch.cli.output import ago, render
from hutch.errors import InvalidArgument

ROWS = [
    {"ID": "abc", "Names": "one", "Labels": {"a": "b", "c": "d"}, "Ports": ["80", "81"]},
    {"ID": "defghi", "Names": "two", "Labels": {}, "Ports": []},
]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", "CONTAINER ID   NAMES\nabc            one\ndefghi         two"),
        ("table {{.Names}}\\t{{.ID}}", "NAMES   CONTAINER ID\none     abc\ntwo     defghi"),
        ("{{.ID}}: {{.Names}}", "abc: one\ndefghi: two"),
        ("{{json .Labels}}", '{"a":"b","c":"d"}\n{}'),
        ("{{.Labels}}", "a=b,c=d\n"),
        ('{{upper .Names}} {{join .Ports "/"}}', "ONE 80/81\nTWO "),
        ("{{.Ports | len}}", "2\n0"),
        ("{{ .ID | upper | lower }}", "abc\ndefghi"),
    ],
)
def test_templates(template, text):
    assert render(ROWS, template, COLUMNS) == text


@pytest.mark.parametrize(
    "template", ["{{.Nothing}}", "{{range .ID}}", "{{.ID", "{{foo .ID}}", '{{join .ID "}}', "{{}}"]
)
def test_what_is_not_in_the_subset_is_refused(template):
    with pytest.raises(InvalidArgument, match="templat"):
        render(ROWS, template, COLUMNS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (61, "About a minute"), (600, "10 minutes"), (3600, "About an hour"),
     (7200, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 90, "3 months"),
     (86400 * 800, "2 years")],
)  # fmt: skip
def test_ages_in_dockers_words(seconds, text):
    assert ago("1970-01-01T00:00:00.5Z", seconds) == text
