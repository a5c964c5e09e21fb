"""Writes the text of docs/gallery.md: metrics first, then a section for each explorer."""

from __future__ import annotations

import os

from gallery_content import RUNS, Comparison, History, Look, train_command
from gallery_looks import REPORT, SECTIONS, SHOTS
from gallery_metrics import METRICS, OF, Results


def markdown(results: Results) -> str:
    import torch

    lines = [
        "# Gallery",
        "",
        "`make gallery` writes this page. It trains the runs below on MNIST and runs every",
        "explorer on them. All values come from the commands on this page, except the columns",
        '"published", which are from the articles. Unless stated otherwise, explorers use the',
        "10,000 test images and the posterior mean. Each `explore` command also writes its data,",
        "and some also write an HTML page or an animation.",
        "[components.md](components.md#explorers) describes the options.",
        "",
        "```bash",
        *(train_command(run, "runs") for run in RUNS),
        "```",
        "",
        "## Metrics",
        "",
        f"Measured on {os.cpu_count()} CPU cores (threads: {torch.get_num_threads()}) with torch "
        f"{torch.__version__}, seed 0 and default settings. "
        f"Generating the whole page takes {results.seconds / 60:.0f} minutes.",
        "",
        "- Guided search: 1,000 requests, 100 for each class. Each request starts at the code of a",
        "  training image of another class, except in the published search. `mlp` guides the",
        "  search, and `cnn` judges all results. Times cover only the search. The best of k",
        "  training codes is retrieval without a gradient, on the first 100 requests. The spread",
        "  of codes is 1 if the results of a class are as different as its training images.",
        "- Inpainting: the lower halves of 100 test images are hidden. The error is the squared",
        "  error per pixel, for values in [0, 1].",
        "- t-SNE: the k-NN accuracy is the fraction of images whose class is the majority class of",
        "  their 10 nearest neighbours. The accuracy lost is the difference of the two accuracies",
        "  before rounding, in percentage points. Times cover the whole command.",
        "",
        "| search or map | metric | target | result | for comparison | verdict |",
        "|" + "---|" * 6,
    ]
    for metric in METRICS:
        value = format(results.value_of(metric), metric.form)
        cells = [OF[metric.look], metric.name, metric.bounds_text(), value]
        cells += [results.baselines(metric), results.verdict(metric)]
        lines.append(f"| {' | '.join(cells)} |")
    for section in SECTIONS:
        lines += ["", f"## {section.title}"]
        for item in section.items:
            lines += ["", *item_lines(item, results)]
    lines += ["", "## report", "", "```bash", REPORT, "```", ""]
    lines += [f"![{alt}](gallery/{file})" for file, alt in SHOTS.items()]
    lines += [
        "",
        "The report is one HTML file that needs no network access. It contains the metrics with",
        "their protocols, the curves, the findings of all explorers that were run, the settings",
        "and the commands. A map shows the image of the point under the pointer and, for a",
        "two-dimensional latent space, the decoded image at that position.",
    ]
    return "\n".join(lines) + "\n"


def item_lines(item: Look | History | Comparison, results: Results) -> list[str]:
    match item:
        case Look():
            lines = [describe(item, results), "", "```bash", item.command, "```"]
            for file, alt in item.pictures.items():
                lines += ["", f"![{alt}](gallery/{item.name}-{file})"]
            return lines
        case History():
            picture = f"![{item.alt}](gallery/{item.name}.png)"
            return [item.text, "", *results.tables[item.name], "", picture]
        case Comparison():
            return compare(item, results)


def describe(look: Look, results: Results) -> str:
    """The text of a look with its metrics."""
    metrics = results.metrics[look.name]
    return look.text.format(**{key.replace(".", "_"): value for key, value in metrics.items()})


def compare(comparison: Comparison, results: Results) -> list[str]:
    """A table; a metric that a command does not report is a dash."""
    titles = ["metric", "definition", *comparison.looks.values()]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for key, (form, definition) in comparison.rows.items():
        values = [results.metrics[look].get(key) for look in comparison.looks]
        cells = ["-" if value is None else format(value, form) for value in values]
        lines.append(f"| `{key}` | {definition} | {' | '.join(cells)} |")
    return lines
