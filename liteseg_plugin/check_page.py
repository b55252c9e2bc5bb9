"""The page of `liteseg data check`: one HTML file that opens from disk, without a network."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from pathlib import Path

import cv2
from jinja2 import Environment

from liteseg_plugin.datasets.faults import read_image, read_label
from liteseg_plugin.datasets.files import process, write_whole
from liteseg_plugin.report import overlay

THUMBNAIL_WIDTH = 480
"""Width of the overlays in pixels."""

# Text and background contrast by at least 4.5 to 1 in both schemes.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Check of {{ report.data }}</title>
<style>
:root { --text: #1c1c1c; --soft: #595959; --page: #ffffff; --panel: #f3f3f1; --line: #d0d0cc;
  --good: #1d6b32; --bad: #b3261e; --warn: #7a5200; --bar: #4a6fa5; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececec; --soft: #b0b0b0; --page: #161616; --panel: #222222; --line: #444444;
    --good: #7fd493; --bad: #ff9a92; --warn: #f0c060; --bar: #7ea3d8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
a, summary { color: inherit; }
:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; } .name { text-align: left; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .5em;
  border: 1px solid var(--line); vertical-align: -.1em; }
.key { display: inline-block; margin-right: 1em; }
.bar { min-width: 6rem; width: 30%; }
.bar span { display: block; height: .7em; background: var(--bar); }
details { margin: .5rem 0; padding: .5rem .75rem; background: var(--panel); border-radius: .3rem; }
summary { cursor: pointer; font-weight: 600; }
pre { white-space: pre-wrap; background: var(--panel); padding: .75rem; border-radius: .3rem; }
.grid { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; color: var(--soft); }
</style>
</head>
<body>
<main>
<h1>Check of {{ report.data }}</h1>
<p>{% if report.ok %}<strong class="good">No errors.</strong>
{% else %}<strong class="bad">{{ report.errors|length }} errors.</strong>{% endif %}
{{ report.warnings|length }} warnings. {{ report.images }} images
({% for name, count in report.splits.items() %}{{ name }} {{ count }}{{ ", " if not loop.last }}
{%- endfor %}), {{ report.num_classes }} classes, looked at in {{ "%.1f"|format(report.seconds) }} s
({{ "%.0f"|format(report.images_per_second) }} a second).</p>

{% for severity, tone, groups in findings %}{% if groups %}
<h2>{{ severity }}</h2>
{% for kind, messages in groups.items() %}
<details{{ " open" if messages|length <= 10 }}>
<summary class="{{ tone }}">{{ kind }} ({{ messages|length }})</summary>
<ul>{% for message in messages[:1000] %}<li>{{ message }}</li>{% endfor %}</ul>
{% if messages|length > 1000 %}
<p>{{ messages|length - 1000 }} more: --json lists all.</p>{% endif %}
</details>
{% endfor %}{% endif %}{% endfor %}

<h2>Classes</h2>
<div class="wide" tabindex="0" role="region" aria-label="Table of classes">
<table>
<thead><tr><th scope="col">#</th><th scope="col" class="name">class</th>
<th scope="col">share</th><th scope="col" class="name">of the labelled pixels</th>
{% for name in report.splits %}<th scope="col">images in {{ name }}</th>{% endfor %}
<th scope="col">weight</th></tr></thead>
<tbody>{% for entry in report.classes %}
<tr><td>{{ entry.index }}</td>
<th scope="row" class="name"><span class="swatch" style="background: rgb(
{{- entry.color|join(', ') }})"></span>{{ entry.name }}</th>
<td>{{ "%.2f"|format(entry.share * 100) }} %</td>
<td class="bar"><span style="width: {{ "%.2f"|format(100 * entry.share / largest) }}%"></span></td>
{% for name in report.splits %}<td>{{ entry.images[name] }}</td>{% endfor %}
<td>{{ "%.2f"|format(entry.weight) }}</td></tr>{% endfor %}
</tbody></table></div>
<p class="soft">{{ "%.1f"|format(report.ignored_share * 100) }} % of the pixels are
{{ report.ignore_index }} and do not count.</p>

<h2>For the config</h2>
<p>Weights by {{ report.weight_formula }}; they are a suggestion, and the released recipes use
none.{% if report.min_kept %} <code>min_kept</code> is a sixteenth of the pixels of a batch at
{{ report.min_kept.width }}x{{ report.min_kept.height }}, {{ report.min_kept.per_image }} for each
image; the plugin's loss takes it by itself where it is left out.{% endif %}</p>
<pre>loss:
  types:
    - type: OhemCrossEntropyLoss
{%- if report.min_kept and report.min_kept.value %}
      min_kept: {{ report.min_kept.value }}
{%- endif %}
      ignore_index: {{ report.ignore_index }}
      weight: [{{ report.classes|map(attribute="weight")|join(", ") }}]</pre>

<h2>Sizes</h2>
<ul>{% for size in report.sizes[:20] %}
<li>{{ size.width }}x{{ size.height }}: {{ size.images }} images</li>{% endfor %}
{% if report.sizes|length > 20 %}<li>{{ report.sizes|length - 20 }} more sizes</li>{% endif %}</ul>

{% if figures %}<h2>Labels over images</h2>
<p>{% for entry in report.classes %}<span class="key"><span class="swatch" style="background: rgb(
{{- entry.color|join(', ') }})"></span>{{ entry.name }}</span> {% endfor %}</p>
<div class="grid">{% for figure in figures %}
<figure><img alt="Labels over {{ figure.image }}" width="{{ figure.width }}"
height="{{ figure.height }}" loading="lazy" src="data:image/jpeg;base64,{{ figure.data }}">
<figcaption>{{ figure.split }}: {{ figure.name }}</figcaption></figure>{% endfor %}
</div>{% endif %}
</main>
</body>
</html>
"""


def write_page(report: dict, path: str | os.PathLike) -> Path:
    """Write what :func:`liteseg_plugin.datasets.check.check` found, with overlays.

    Args:
        report: Its result.
        path: The HTML file.

    Returns:
        The path.
    """
    figures = process(
        lambda sample: _figure(sample, report["classes"]),
        report["samples"],
        description="overlays",
    )
    findings = []
    for severity, tone in (("errors", "bad"), ("warnings", "warn")):
        groups = defaultdict(list)
        for entry in report[severity]:
            groups[entry["kind"]].append(entry["message"])
        findings.append((severity.capitalize(), tone, groups))
    largest = max((entry["share"] for entry in report["classes"]), default=0) or 1
    template = Environment(autoescape=True).from_string(_PAGE)
    page = template.render(report=report, findings=findings, figures=figures, largest=largest)
    # File names may hold bytes that are no text.
    write_whole(path, page.encode("utf-8", errors="replace"))
    return Path(path)


def _figure(sample: dict, classes: list[dict]) -> dict:
    image, label = read_image(sample["image"]), read_label(sample["label"])
    width = min(THUMBNAIL_WIDTH, image.shape[1])
    size_wh = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    label = cv2.resize(label.astype("uint8"), size_wh, interpolation=cv2.INTER_NEAREST)
    blended = overlay(image, label, classes, legend=False)
    encoded = cv2.imencode(".jpg", blended, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return {
        "split": sample["split"],
        "image": sample["image"],
        "name": Path(sample["image"]).name,
        "width": size_wh[0],
        "height": size_wh[1],
        "data": base64.b64encode(encoded.tobytes()).decode("ascii"),
    }
