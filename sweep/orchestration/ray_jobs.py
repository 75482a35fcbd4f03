"""A search sent to a cluster as one of Ray's jobs. Its driver runs on the head, whatever becomes of the sender."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import StudyError
from sweep.orchestration.address import check_page
from sweep.orchestration.ray_connection import package  # which sets what ray reads when it is imported

# isort: split
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

_REMEDY = (
    "it is the address of Ray's dashboard (8265 unless changed); with RAY_AUTH_MODE=token the cluster's token is read "
    "from RAY_AUTH_TOKEN, or ~/.ray/auth_token"
)
_NO_AGENT = (
    "its head's agent did not start, most often because another Ray on that machine has its port: `ray start --head "
    "--dashboard-agent-listen-port=...` gives it another one"
)


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`. Raises StudyError where there is none."""

    def __init__(self, address: str) -> None:
        check_page(address)
        self.address = address
        with self._explained():
            self._client = JobSubmissionClient(address)

    def send(self, name: str, arguments: Sequence[str], file: Path | None) -> str:
        """Have ``sweep`` run there with these arguments, in a folder that holds `file`. Returns the job's name."""
        job = f"sweep-{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        with tempfile.TemporaryDirectory(prefix="sweep-job-") as folder, self._explained():
            if file:
                shutil.copy(file, folder)
            self._client.submit_job(
                entrypoint=f"python -m sweep {shlex.join(arguments)}",
                submission_id=job,
                runtime_env={"working_dir": folder, **package()},
                metadata={"study": name},
            )
        return job

    def follow(self, job: str, say: Callable[[str], None]) -> bool:
        """Say what the job prints until it ends; whether it ended well."""

        async def listen() -> None:
            async for text in self._client.tail_job_logs(job):
                say(text)

        with self._explained():
            asyncio.run(listen())
            return bool(self._client.get_job_status(job) == JobStatus.SUCCEEDED)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RayError, RuntimeError, ConnectionError) as error:
            reason = str(error).strip().split("\n")[0]
            remedy = _NO_AGENT if "No available agent" in reason else _REMEDY
            raise StudyError(f"Ray's jobs at {self.address}: {reason.rstrip('.')}; {remedy}") from error
