"""`python -m portdet_paddle.launcher N LOGS SCRIPT...`: paddle.distributed.launch that keeps the environment to itself.

Into its log folder Paddle's launcher writes the whole environment of each rank, passwords and tokens too (3.3.1:
envlog.N, backup_env.N.json and a log of its own), and a run's folder is shared. So its folder is a private one, gone at
the end, in which the ranks' logs are links to LOGS. The last lines of a failed rank are not printed once more.
"""

from __future__ import annotations

import sys
from pathlib import Path

from portdet.processes.scratch import scratch
from portdet_paddle.start import import_paddle


def main() -> None:
    devices, logs, script = int(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3:]
    with scratch() as private:
        for rank in range(devices):
            (private / f"workerlog.{rank}").symlink_to(logs / f"workerlog.{rank}")
        words = [f"--nproc_per_node={devices}", f"--log_dir={private}", "--log_overwrite=true", "--log_level=WARNING"]
        import_paddle()
        sys.argv = ["paddle.distributed.launch", *words, *script]
        from paddle.distributed.launch.job.container import Container
        from paddle.distributed.launch.main import launch

        Container.tail = lambda *_: None
        launch()


if __name__ == "__main__":
    main()
