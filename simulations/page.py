"""The report's template; a Python file, since Flower's app bundle leaves out files of types it doesn't know."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5c6670; --line: #dfe3e8; --good: #1a7f37; --bad: #c62828;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101318; --card: #181c22; --ink: #e6e9ed; --soft: #9aa4ae; --line: #313740; --good: #56c271; --bad: #ff7b72;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 2.5rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1140px; margin: 0 auto; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; }
h2 { margin: 2.4rem 0 .7rem; font-size: 1.1rem; }
p { margin: .25rem 0; }
.soft, figcaption, th, dt, .spread { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(172px, 1fr)); gap: .8rem; margin-top: 1.4rem; }
.card, figure, .scroll, dl { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.card { padding: .85rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-weight: 600; line-height: 1.3; white-space: nowrap; }
.card .spread, .card .unit { font-size: .95rem; font-weight: 400; }
p.soft { font-size: .9rem; }
.card span.name, .card span.note { display: block; font-size: .82rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .6rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 500; white-space: pre; line-height: 1.3; vertical-align: bottom; }
th.text, td.text { text-align: left; }
th.wide { width: 100%; }
tbody tr { border-top: 1px solid var(--line); }
td .spread { display: block; font-size: .92em; font-weight: 400; }
td.strong { font-weight: 600; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: .8rem; }
figure { margin: 0 0 .8rem; padding: .9rem 1rem .6rem; }
figcaption { font-size: .86rem; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.4rem; margin: 0; padding: .9rem 1rem;
  font-size: .9rem;
}
dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { background: none; padding: 0; } figure, .card { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
<section class="cards">
{%- for card in cards %}
<div class="card"><span class="name">{{ card.name }}</span>
<b class="{{ card.cell.tone }}">{{ card.cell.text }}<span class="unit">{{ card.unit }}</span>
{%- if card.cell.spread %} <span class="spread">{{ card.cell.spread }}</span>{% endif %}</b>
<span class="note">{{ card.note }}</span></div>
{%- endfor %}
</section>
{%- for part in tables %}
<h2>{{ part.title }}</h2>
<div class="scroll"><table>
<thead><tr>
{%- for column in part.columns %}
<th class="{{ 'text' if column.text }}" title="{{ column.note }}">{{ column.title }}</th>
{%- endfor %}
</tr></thead>
<tbody>
{%- for row in part.rows %}
<tr>
{%- for cell in row %}
<td class="{{ 'text' if part.columns[loop.index0].text }} {{ cell.tone }}{{ ' strong' if cell.tone }}">{{ cell.text }}
{%- if cell.spread %}<span class="spread">{{ cell.spread }}</span>{% endif %}</td>
{%- endfor %}
</tr>
{%- endfor %}
</tbody></table></div>
<p class="soft">{{ part.note }}</p>
{%- endfor %}
{%- for group in plots %}
<h2>{{ group.title }}</h2>
<div class="{{ 'two' if group.figures | length > 1 }}">
{%- for caption, svg in group.figures %}
<figure><figcaption>{{ caption }}</figcaption>{{ svg }}</figure>
{%- endfor %}
</div>
{%- endfor %}
{%- if refused %}
<h2>Refused answers</h2>
<div class="scroll"><table>
<thead><tr><th class="text">round</th><th class="text">device</th><th class="text wide">reason</th></tr></thead>
<tbody>
{%- for number, device, reason in refused %}
<tr><td class="text">{{ number }}</td><td class="text">{{ device }}</td><td class="text">{{ reason }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- endif %}
<h2>Run</h2>
<dl>
{%- for name, text in facts %}
<dt>{{ name }}</dt><dd>{{ text }}</dd>
{%- endfor %}
</dl>
</main>
</body>
</html>
"""
