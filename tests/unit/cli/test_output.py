from __future__ import annotations

import pytest

from hutch.cli.output import ago, render
from hutch.errors import InvalidArgument

ROWS = [
    {"ID": "abc", "Names": "one", "Labels": {"a": "b", "c": "d"}, "Ports": ["80", "81"], "RunningFor": "1 hour ago"},
    {"ID": "defghi", "Names": "two", "Labels": {}, "Ports": [], "RunningFor": "2 hours ago"},
]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))
HEADED = (*COLUMNS, ("CREATED", "RunningFor"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", "CONTAINER ID   NAMES\nabc            one\ndefghi         two"),
        ("table {{.Names}}\\t{{.ID}}", "NAMES     CONTAINER ID\none       abc\ntwo       defghi"),
        ("table {{.ID}}\\t{{upper .Names}}", "CONTAINER ID   NAMES\nabc            ONE\ndefghi         TWO"),
        ('table {{.Label "a"}}\\t{{.RunningFor}}', "a         CREATED\nb         1 hour ago\n          2 hours ago"),
        ("{{.ID}}: {{.Names}}", "abc: one\ndefghi: two"),
        ("{{.ID}}\\n", "abc\n\ndefghi\n"),
        ("{{json .Labels}}", '"a=b,c=d"\n""'),
        ("{{.Labels}}", "a=b,c=d\n"),
        ('{{upper .Names}} {{join (split .Ports ",") "/"}}', "ONE 80/81\nTWO "),
        ("{{.Ports | len}}", "5\n0"),
        ('{{.Label "c"}}', "d\n"),
        ("{{ .ID | upper | lower }}", "abc\ndefghi"),
        ("{{if .Labels}}{{.ID}}{{else}}none{{end}}", "abc\nnone"),
    ],
)
def test_templates(template, text):
    assert render(ROWS, template, HEADED if template else COLUMNS) == text


def test_rows_as_json_are_sorted_text_and_safe_in_html():
    rows = [{"Tag": "<none>", "ID": "a", "Labels": {"x": "1"}}]
    assert render(rows, "json", COLUMNS) == r'{"ID":"a","Labels":"x=1","Tag":"\u003cnone\u003e"}'


def test_a_table_without_rows_has_its_headings():
    assert render([], "table {{.Names}}\\t{{.CreatedAt}}", COLUMNS) == "NAMES     CREATED AT"


@pytest.mark.parametrize(
    "template", ["{{.Nothing}}", "{{range .ID}}", "{{.ID", "{{foo .ID}}", '{{join .ID "}}', "{{}}", "{{.Label}}"]
)
def test_what_is_no_template_of_these_rows_is_refused(template):
    with pytest.raises(InvalidArgument, match="template parsing error: template: :1"):
        render(ROWS, template, COLUMNS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (61, "About a minute"), (600, "10 minutes"), (3600, "About an hour"),
     (7200, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 90, "3 months"),
     (86400 * 800, "2 years")],
)  # fmt: skip
def test_ages_in_dockers_words(seconds, text):
    assert ago("1970-01-01T00:00:00.5Z", seconds) == text
