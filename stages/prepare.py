"""Prepare: from the source to the image store."""

from __future__ import annotations

from pipeline import cluster, paths, stage
from pipeline.data.prepare import prepare


def run(at: stage.Stage) -> None:
    """Write the store of the experiment's images, its tasks run by Ray."""
    with cluster.mapping(at.params.cluster) as run_tasks:
        manifest = prepare(at.params.data, paths.data_dir(at.experiment), run_tasks=run_tasks)
    counts = ", ".join(f"{split.n_images:,} {name}" for name, split in manifest.splits.items())
    print(f"{at.experiment}: {counts} images of {len(manifest.class_names)} classes")


if __name__ == "__main__":
    stage.main("prepare", run, of_run=False)
